"""Contrastive losses beside lightly's and their formulas, slow branches and queues."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from raygrid.core.errors import SpecError
from raygrid.core.images import Images
from raygrid.core.seeds import forked
from raygrid.nn.contrastive.base import Framework
from raygrid.nn.contrastive.byol import ByolLoss
from raygrid.nn.contrastive.losses import (
    align_uniform,
    loss_factor,
    nt_xent_of_pairs,
    sup_con,
    uniformity,
)
from raygrid.nn.contrastive.moco import MocoLoss
from raygrid.nn.contrastive.pairs import AlignUniform, SimClrLoss, SupClLoss
from raygrid.nn.contrastive.simsiam import SimSiamLoss
from tests.conftest import toy
from tests.learners.toys import RECIPE, branch, encoder, small, task_of, two_views, unit


def test_sup_con_equals_the_double_sum() -> None:
    z, labels, t = unit(12), torch.tensor([0, 1, 2, 0, 1, 3] * 2), 0.3
    total = 0.0
    for i in range(12):
        others = [k for k in range(12) if k != i]
        bottom = torch.logsumexp(torch.stack([z[i] @ z[k] / t for k in others]), 0)
        positive = [j for j in others if labels[j] == labels[i]]
        total -= sum(float(z[i] @ z[j] / t - bottom) for j in positive) / len(positive)
    assert float(sup_con(z, labels, t)) == pytest.approx(total / 12, abs=1e-5)


def test_sup_con_of_sample_ids_is_nt_xent() -> None:
    from lightly.loss import NTXentLoss

    a, b = unit(10, 8, "a"), unit(10, 8, "b")
    ours = sup_con(torch.cat([a, b]), torch.arange(10).repeat(2), 0.5)
    assert float(ours) == pytest.approx(float(NTXentLoss(0.5)(a, b)), abs=1e-5)


def test_sup_con_without_positives_is_zero_and_finite() -> None:
    z = unit(3).requires_grad_()
    loss = sup_con(z, torch.arange(3), 0.5)
    loss.backward()
    assert float(loss.detach()) == 0
    assert z.grad is not None
    assert bool(torch.isfinite(z.grad).all())


def test_align_uniform_equals_lightly_and_the_pairwise_mean() -> None:
    from lightly.loss.hypersphere_loss import HypersphereLoss

    a, b = unit(9, 8, "a"), unit(9, 8, "b")
    theirs = float(HypersphereLoss(t=2.0, lam=1.0, alpha=2.0)(a, b))
    assert float(align_uniform(a, b)) == pytest.approx(theirs, abs=1e-5)
    pairs = [(i, j) for i in range(9) for j in range(i + 1, 9)]
    mean = sum(float(torch.exp(-2 * (a[i] - a[j]).square().sum())) for i, j in pairs) / len(pairs)
    assert float(uniformity(a)) == pytest.approx(float(torch.tensor(mean).log()), abs=1e-5)
    weighted = 3 * float(align_uniform(a, b, 1, 0)) + 2 * float(align_uniform(a, b, 0, 1))
    assert float(align_uniform(a, b, 3, 2)) == pytest.approx(weighted, abs=1e-5)


def test_loss_scale_is_a_change_of_rate_and_decay() -> None:
    factor = loss_factor(0.5, "base007")
    assert factor == pytest.approx(0.5 / 0.07)
    weights = []
    for scale, rate, decay in (("base007", 0.01, 1e-3), ("none", 0.01 * factor, 1e-3 / factor)):
        recipe = RECIPE.with_(lr=rate, weight_decay=decay, batch_size=16)
        session = small("simclr", loss_scale=scale).start(task_of(toy(64), recipe))
        for epoch in range(5):
            session.epoch(epoch)
        weights.append(encoder(session))
    for key, tensor in weights[0].items():
        assert torch.allclose(tensor.float(), weights[1][key].float(), atol=1e-5), key


def test_simclr_equals_lightly_on_the_projections(images: Images) -> None:
    from lightly.loss import NTXentLoss

    framework = SimClrLoss(branch(), 0.5, "base007").eval()
    a, b = images.floats(slice(0, 8)), images.floats(slice(8, 16))
    theirs = NTXentLoss(0.5)(framework.branch(a), framework.branch(b))
    ours = framework(a, b, images.labels[:8])
    assert float(ours.detach()) == pytest.approx(0.5 / 0.07 * float(theirs.detach()), abs=1e-5)


def test_nt_xent_is_lightlys_bit_for_bit() -> None:
    from lightly.loss import NTXentLoss

    found = []
    for loss in (NTXentLoss(0.5), functools.partial(nt_xent_of_pairs, temperature=0.5)):
        a, b = (unit(33, 16, key).requires_grad_() for key in "ab")
        value = loss(a, b)
        found.append([value, *torch.autograd.grad(value, (a, b))])
    assert all(torch.equal(x, y) for x, y in zip(*found, strict=True))


def test_the_target_follows_by_the_formula_and_gets_no_gradient(images: Images) -> None:
    session = two_views("byol", images, ema_updates=2)
    framework = session.framework
    assert isinstance(framework, ByolLoss)
    a, b = images.floats(slice(0, 8)), images.floats(slice(8, 16))
    with torch.no_grad():
        for p in framework.branch.parameters():
            p.add_(0.1)
    start = [p.clone() for p in framework.target.parameters()]
    fast = [p.detach().clone() for p in framework.branch.parameters()]
    framework(a, b, images.labels[:8]).backward()
    after = framework.target.parameters()
    for old, new, online in zip(start, after, fast, strict=True):
        wanted = 0.9 * (0.9 * old + 0.1 * online) + 0.1 * online
        assert torch.allclose(new, wanted, atol=1e-6)
        assert new.grad is None
        assert not new.requires_grad
    still = [p.clone() for p in framework.target.parameters()]
    framework(a, b, images.labels[:8], move=False)
    assert all(map(torch.equal, still, framework.target.parameters()))


def test_views_that_are_one_batch_share_their_statistics(images: Images) -> None:
    """Port of byol_mse (AUE-AAP@64fb25f, utils.py) on outputs of views that lie side by side."""
    session = two_views("byol", images, joint=True, factor=4.0)
    framework, apart = session.framework, two_views("byol", images, factor=4.0).framework
    assert isinstance(framework, ByolLoss)
    a, b = images.floats(slice(0, 8)), images.floats(slice(8, 16)) ** 2
    copies = copy.deepcopy(framework)
    side_by_side = torch.stack([a, b], 1).flatten(0, 1)
    online = functional.normalize(copies.predictor(copies.branch(side_by_side)), dim=1)
    with torch.no_grad():
        target = functional.normalize(copies.target(side_by_side), dim=1)
    wanted = 4 - 2 * (online[::2] * target[1::2] + online[1::2] * target[::2]).sum(1).mean()
    loss = framework(a, b, images.labels[:8], move=False)
    torch.testing.assert_close(loss + 4, wanted)
    assert apart(a, b, images.labels[:8], move=False) != loss


def test_the_queue_wraps_and_keeps_unit_keys(images: Images) -> None:
    with forked(0):
        moco = MocoLoss(branch(), (32, 8), 0.9, 0.2, "none")
    y = images.labels[:8]
    starts = [int(moco.queue.bank_ptr)]
    first = moco.queue.bank.clone()
    for step in range(5):
        x = images.floats(slice(8 * step, 8 * step + 8))
        moco(x, x, y)
        starts.append(int(moco.queue.bank_ptr))
    assert starts == [0, 8, 16, 24, 0, 8]
    assert torch.allclose(moco.queue.bank.norm(dim=1), torch.ones(32), atol=1e-5)
    assert not (moco.queue.bank == first).all(1).any()
    assert all(p.grad is None and not p.requires_grad for p in moco.slow.parameters())


def test_the_step_does_not_see_its_own_keys_as_negatives(images: Images) -> None:
    with forked(0):
        moco = MocoLoss(branch(), (16, 8), 0.9, 0.2, "base007").eval()
    a, b, y = images.floats(slice(0, 8)), images.floats(slice(8, 16)), images.labels[:8]
    with torch.no_grad():
        bank = moco.queue.bank.clone()
        q, k = (
            functional.normalize(net(x), dim=1) for net, x in ((moco.branch, a), (moco.slow, b))
        )
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ bank.T], 1) / 0.2
        wanted = 0.2 / 0.07 * functional.cross_entropy(logits, torch.zeros(8, dtype=torch.int64))
        still = moco(a, b, y, move=False)
        assert torch.equal(moco.queue.bank, bank)
        assert float(moco(a, b, y)) == pytest.approx(float(wanted), abs=1e-5)
        assert float(still) == pytest.approx(float(wanted), abs=1e-5)
    assert torch.allclose(moco.queue.bank[:8], k, atol=1e-6)
    assert torch.equal(moco.queue.bank[8:], bank[8:])


def test_the_queue_outlives_a_checkpoint(images: Images) -> None:
    one, other = two_views("moco", images), two_views("moco", images)
    one.epoch(0)
    assert isinstance(one.framework, MocoLoss)
    assert isinstance(other.framework, MocoLoss)
    assert not torch.equal(one.framework.queue.bank, other.framework.queue.bank)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert torch.equal(one.framework.queue.bank, other.framework.queue.bank)
    assert torch.equal(one.framework.queue.bank_ptr, other.framework.queue.bank_ptr)


def test_a_queue_that_the_batch_does_not_divide_is_refused(images: Images) -> None:
    with pytest.raises(SpecError, match="queue is 40, allowed are multiples of the batch size 16"):
        small("moco", queue=40).start(task_of(images))


FRAMEWORKS: dict[str, Callable[[], Framework]] = {
    "simclr": lambda: SimClrLoss(branch(), 0.5, "none"),
    "supcl": lambda: SupClLoss(branch(), 0.5, "none"),
    "align_uniform": lambda: AlignUniform(branch()),
    "byol": lambda: ByolLoss(branch(), nn.Linear(8, 8), 0.9),
    "moco": lambda: MocoLoss(branch(), (16, 8), 0.9, 0.2, "none"),
    "simsiam": lambda: SimSiamLoss(branch(), nn.Linear(8, 8)),
}


@pytest.mark.parametrize("name", FRAMEWORKS)
@pytest.mark.parametrize("view", [0, 1])
def test_with_dual_branches_gradients_reach_both_views(
    name: str, view: int, images: Images
) -> None:
    with forked(0):
        framework = FRAMEWORKS[name]().eval()
    views = [images.floats(slice(0, 8)), images.floats(slice(8, 16))]
    views[view].requires_grad_()
    loss = framework(*views, images.labels[:8], move=False, dual=True)
    (gradient,) = torch.autograd.grad(loss, views[view])
    assert gradient.flatten(1).abs().amax(1).min() > 0
    if name == "moco" and view == 1:
        single = framework(*views, images.labels[:8], move=False)
        assert not single.requires_grad or torch.autograd.grad(
            single, views[view], allow_unused=True
        ) == (None,)
    if name in ("byol", "simsiam"):
        single = framework(*views, images.labels[:8], move=False)
        (other,) = torch.autograd.grad(single, views[view])
        assert not torch.allclose(gradient, other)
