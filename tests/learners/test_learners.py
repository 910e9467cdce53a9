"""What every learner must hold, by being registered; losses, queues and probes by their oracles."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks import ATTACKS
from raygrid.core.errors import DivergedError, SpecError
from raygrid.core.images import Images, to_uint8
from raygrid.core.seeds import Stream, forked
from raygrid.core.spec import Part, Scalar
from raygrid.core.speed import CPU
from raygrid.defenses import DEFENSES
from raygrid.defenses.chain import Chain
from raygrid.engine.costs.estimate import trial_seconds
from raygrid.engine.grid import plan
from raygrid.learners import LEARNERS
from raygrid.learners.base import Learner, Session, Task
from raygrid.learners.common.features import CollapseAlarm, features_of
from raygrid.learners.common.knn import KnnClassifier
from raygrid.learners.common.probe import fit_probe
from raygrid.learners.common.two_views import TwoViews, TwoViewSession
from raygrid.learners.supervised import Supervised, SupervisedSession, augmented, with_frozen_views
from raygrid.nn.augment import CropFlip, Views
from raygrid.nn.contrastive.base import Branch, Framework
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
from raygrid.nn.recipes import Probing, Recipe
from raygrid.nn.trainer import freeze
from raygrid.protocols import PROTOCOLS
from raygrid.trials.evaluate import score
from raygrid.trials.resolve import resolve
from raygrid.trials.result import Result
from tests.conftest import toy

VIEWS = [name for name in LEARNERS if LEARNERS[name].views]
FRESH = [name for name in LEARNERS if not LEARNERS[name].pretrained]
RECIPE = Recipe(
    epochs=3, batch_size=16, lr=0.05, weight_decay=1e-4, schedule="constant", precision="fp32"
)
PROBE = Probing(Recipe(epochs=20, batch_size=32, lr=0.05, weight_decay=0.0, precision="fp32"))


def small(name: str, **more: Scalar) -> Learner:
    return LEARNERS.tiny(Part.of(name, **more))


def scenes(n: int, seed: int = 0) -> Images:
    """Smooth random color fields, each unlike the others; the color of the center is the class."""
    generator = Stream("scenes").generator(n, seed)
    coarse = torch.rand(n, 3, 3, 3, generator=generator)
    labels = torch.arange(n) % 4
    centers = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    coarse[:, :, 1, 1] = centers[labels]
    return Images(to_uint8(functional.interpolate(coarse, 16, mode="bilinear")), labels, 4)


def task_of(images: Images, recipe: Recipe = RECIPE, **changes: Any) -> Task:
    task = Task(
        train=images,
        labeled=images,
        architecture=ARCHITECTURES.make("small_cnn(width=8)"),
        recipe=recipe,
        defense=Chain.make((Part("standard"),)),
        streams={a: Stream(a, ("toy", 0)) for a in ("init", "data", "views", "probe")},
        augmentation=CropFlip(2),
        normalization=((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        probing=PROBE,
        extractor=freeze(ARCHITECTURES.make("small_cnn(width=8)").build(7, images.shape[-1], 1)),
    )
    return replace(task, **changes)


def two_views(name: str, images: Images, **more: object) -> TwoViewSession:
    session = small(name, **more).start(task_of(images))
    assert isinstance(session, TwoViewSession)
    return session


def tensors_of(state: object, where: str = "") -> dict[str, Tensor]:
    """All tensors in nested state."""
    if isinstance(state, Tensor):
        return {where: state}
    if isinstance(state, Mapping):
        pairs = list(state.items())
    elif isinstance(state, list | tuple):
        pairs = list(enumerate(state))
    else:
        return {}
    return {k: t for key, value in pairs for k, t in tensors_of(value, f"{where}/{key}").items()}


def same(one: object, other: object) -> bool:
    left, right = tensors_of(one), tensors_of(other)
    return left.keys() == right.keys() and all(torch.equal(t, right[k]) for k, t in left.items())


def encoder(session: Session) -> dict[str, Tensor]:
    """Weights and buffers of the encoder that a session trains."""
    network = session.network  # type: ignore[attr-defined]
    return {k: t.clone() for k, t in network.state_dict().items() if not k.startswith("head")}


@pytest.mark.parametrize("name", LEARNERS)
def test_training_lowers_the_loss(name: str) -> None:
    """Counted from the second epoch: MoCo's queue is full of noise in the first."""
    session = small(name).start(task_of(scenes(192), RECIPE.with_(lr=0.01)))
    losses = [session.epoch(e)["train_loss"] for e in range(7)]
    assert sum(losses[4:]) / 3 < losses[1]


@pytest.mark.parametrize("name", LEARNERS)
def test_resuming_gives_the_same_bits(name: str, images: Images) -> None:
    whole = small(name).start(task_of(images))
    whole.epoch(0)
    state = copy.deepcopy(whole.state_dict())
    numbers = whole.epoch(1)
    resumed = small(name).start(task_of(images))
    assert not same(state, resumed.state_dict())
    resumed.load_state_dict(state)
    assert resumed.epoch(1) == numbers
    assert same(whole.state_dict(), resumed.state_dict())
    x = images.floats()
    assert torch.equal(whole.classifier().eval()(x), resumed.classifier().eval()(x))
    assert torch.equal(whole.finish().eval()(x), resumed.finish().eval()(x))


@pytest.mark.parametrize("name", [name for name in LEARNERS if name != "linear_probe"])
def test_labels_matter_just_where_the_learner_says_so(name: str, images: Images) -> None:
    permuted = replace(images, labels=images.labels.sort().values)  # other pairs share a class
    encoders = []
    for each in (images, permuted):
        session = small(name).start(task_of(each))
        session.epoch(0)
        encoders.append(encoder(session))
    assert same(*encoders) != LEARNERS[name].labels


@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_gives_classifiers(name: str, images: Images) -> None:
    session = small(name).start(task_of(images))
    session.epoch(0)
    for model in (session.classifier(), session.finish()):
        scores = model.eval()(images.floats())
        assert scores.shape == (len(images), images.classes)
        assert bool(torch.isfinite(scores).all())


@pytest.mark.parametrize("name", LEARNERS)
def test_every_image_is_seen_once_an_epoch_in_a_new_order(name: str, images: Images) -> None:
    trainer = small(name).start(task_of(images)).trainer  # type: ignore[attr-defined]
    orders = [torch.cat([b.index for b in trainer.batches(e)]) for e in (0, 1)]
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(len(images)))
    assert not torch.equal(*orders)


@pytest.mark.parametrize("name", LEARNERS)
def test_what_is_dropped_changes_from_epoch_to_epoch(name: str, images: Images) -> None:
    recipe = RECIPE.with_(batch_size=24, drop_last=True)
    trainer = small(name).start(task_of(images, recipe)).trainer  # type: ignore[attr-defined]
    seen = [set(torch.cat([b.index for b in trainer.batches(e)]).tolist()) for e in range(2)]
    assert [len(s) for s in seen] == [48, 48]
    assert seen[0] != seen[1]


@pytest.mark.parametrize("name", LEARNERS)
def test_a_loss_that_is_not_finite_ends_with_its_epoch(name: str, images: Images) -> None:
    session = small(name).start(task_of(images))
    session.epoch(0)
    with torch.no_grad():
        next(session.network.parameters()).fill_(float("nan"))  # type: ignore[attr-defined]
    with pytest.raises(DivergedError, match="epoch 2"):
        session.epoch(1)


def test_weights_lost_in_the_last_step_are_seen(images: Images) -> None:
    """Its loss was finite, and no other step follows."""
    recipe = RECIPE.with_(lr=1e38, batch_size=len(images), epochs=1)
    session = small("supervised").start(task_of(images, recipe))
    with pytest.raises(DivergedError, match=r"epoch 1: norm of the weights is (inf|nan)"):
        session.epoch(0)


@pytest.mark.parametrize("name", LEARNERS)
def test_every_protocol_recipe_can_start(name: str) -> None:
    for protocol in PROTOCOLS:
        if PROTOCOLS.make(protocol).has(name):
            trial = resolve(f"photo_digits/clean/standard/small_cnn/{name}/{protocol}/0", None)
            assert trial.skip() is None
            trial.learner.start(task_of(toy(32), trial.recipe.with_(batch_size=16)))


# Defenses without meaning for learners made of views, by what their reason has to say.
NO_VIEWS = {
    "at": "has no meaning",
    "cutmix": "has no meaning",
    "early_stopping": "scored by kNN only",
    "mixup": "has no meaning",
    "none": "made of augmentation",
    "ueraser_max": "has no meaning",
}
ONLY_VIEWS = {"advcl": {"simclr"}, "rocl": set(VIEWS)}  # learners that they mean something for
PACKAGE = "needs the package"  # another reason, of the machine


@pytest.mark.parametrize("name", FRESH)
@pytest.mark.parametrize("defense", DEFENSES)
def test_the_matrix_of_defenses_and_learners(defense: str, name: str) -> None:
    """Every cell: it runs, or it is skipped with a reason that names the defense or learner."""
    trial = resolve(f"photo_digits/clean/{defense}/small_cnn/{name}/tp/0", None)
    reason = str(trial.skip())
    if PACKAGE in reason:
        pytest.skip(reason)
    if name in ONLY_VIEWS.get(defense, {name}) and not (defense in NO_VIEWS and name in VIEWS):
        assert reason == "None" or "mode=" in reason
        return
    assert NO_VIEWS.get(defense, "") in reason
    assert reason != "None"
    assert name in reason
    longer = defense if defense == "none" else f"grayscale+{defense}"
    chained = resolve(f"photo_digits/clean/{longer}/small_cnn/{name}/tp/0", None)
    assert chained.skip() == reason, "a chain is skipped for its link"


@pytest.mark.parametrize("name", FRESH)
@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_made_without_the_learner(attack: str, name: str) -> None:
    """A poison does not know its victim: all learners of a cell run or none."""
    text = f"photo_digits/{attack}/standard/small_cnn/{{}}/tp/0"
    mine, other = (resolve(text.format(learner), None) for learner in (name, "supervised"))
    assert mine.skip() == other.skip()
    assert mine.poison.key == other.poison.key


@pytest.mark.parametrize("name", VIEWS)
def test_a_batch_of_one_is_refused_before_anything_runs(name: str) -> None:
    text = f"photo_digits/clean/standard/small_cnn/{name}/quick(batch_size=1)/0"
    with pytest.raises(SpecError, match="batch_size is 1, allowed are 2 and more"):
        plan([text], None)


def test_a_queue_is_checked_in_the_plan() -> None:
    text = "photo_digits/clean/standard/small_cnn/moco(queue={})/quick(batch_size=48)/0"
    (skip,) = plan([text.format(100)], None).skips
    assert skip.reason == "queue is 100, allowed are multiples of the batch size 48"
    with pytest.raises(SpecError, match="queue is 100"):
        plan([text.format(100)], None, strict=True)
    assert not plan([text.format(96)], None).skips


@pytest.mark.parametrize("name", VIEWS)
def test_two_views_differ_and_change_from_epoch_to_epoch(name: str, images: Images) -> None:
    session = two_views(name, images)
    pairs = [session.pair(next(session.trainer.batches(e))) for e in (0, 0, 1)]
    (a, b), again, later = pairs
    assert (a - b).flatten(1).abs().amax(1).min() > 0.01
    assert torch.equal(a, again[0])
    assert torch.equal(b, again[1])
    one, two = (session.trainer.batches(e) for e in (0, 1))
    first, second = (torch.cat([session.pair(x)[0] for x in batches]) for batches in (one, two))
    order = [torch.cat([b.index for b in session.trainer.batches(e)]).argsort() for e in (0, 1)]
    gap = (first[order[0]] - second[order[1]]).flatten(1).abs().amax(1)
    assert gap.min() > 0.01, "an image got the same view in two epochs"
    assert later[0].shape == a.shape


def test_frozen_views_never_change(images: Images) -> None:
    session = two_views("simclr", images, frozen_views=True)
    views = []
    for epoch in (0, 1):
        batches = list(session.trainer.batches(epoch))
        order = torch.cat([b.index for b in batches]).argsort()
        views.append([torch.cat(v)[order] for v in zip(*map(session.pair, batches), strict=True)])
    assert torch.equal(views[0][0], views[1][0])
    assert torch.equal(views[0][1], views[1][1])
    assert not torch.equal(views[0][0], views[0][1])


def test_a_supervised_victim_can_keep_one_augmentation_of_each_image(images: Images) -> None:
    """As TP's code does: the same in every epoch, drawn like any other, once."""
    session = Supervised(frozen_views=True).start(task_of(images))
    assert isinstance(session, SupervisedSession)
    seen = []
    for epoch in (0, 1):
        batches = list(session.trainer.batches(epoch))
        order = torch.cat([b.index for b in batches]).argsort()
        every = [augmented(session.task, session.task.defense, b)[0] for b in batches]
        seen.append(torch.cat(every)[order])
    assert torch.equal(seen[0], seen[1])
    moved = (seen[0] - images.floats()).flatten(1).abs().amax(1) > 0.01
    assert moved.float().mean() > 0.5
    plain = task_of(images, augmentation=None)
    assert with_frozen_views(plain) is plain


@pytest.mark.parametrize("flip", [True, False])
def test_views_are_mirrored_only_where_the_dataset_may_be(images: Images, flip: bool) -> None:
    task = task_of(images, augmentation=CropFlip(2, flip=flip))
    learner = small("simclr")
    assert isinstance(learner, TwoViews)
    assert learner.pipeline(task).flip is flip


def test_the_defense_acts_on_each_view_after_the_learner(images: Images) -> None:
    class Darkener(Chain):
        def augment(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
            return x * torch.rand(len(x), 1, 1, 1, generator=rng), y

    plain = two_views("simclr", images)
    batch = next(plain.trainer.batches(0))
    learner = small("simclr")
    defended = learner.start(task_of(images, defense=Darkener(plain.task.defense.links)))
    assert isinstance(defended, TwoViewSession)
    views = defended.pair(next(defended.trainer.batches(0)))
    before = plain.pair(batch)
    factors = [(v.sum((1, 2, 3)) / u.sum((1, 2, 3))) for v, u in zip(views, before, strict=True)]
    assert torch.allclose(views[0], before[0] * factors[0].view(-1, 1, 1, 1), atol=1e-5)
    assert factors[0].max() < 1
    assert not torch.allclose(factors[0], factors[1])


def test_too_few_images_are_refused() -> None:
    with pytest.raises(SpecError, match="has 1 image"):
        small("simclr").start(task_of(toy(1, classes=1)))


# Losses


def unit(n: int, dim: int = 8, *key: object) -> Tensor:
    draws = torch.randn(n, dim, generator=Stream("losses").generator(n, dim, *key))
    return functional.normalize(draws, dim=1)


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


def branch(seed: int = 0, width: int = 8) -> Branch:
    network = ARCHITECTURES.make(f"small_cnn(width={width})").build(4, 16, seed)
    with forked(seed):
        return Branch(network, nn.Linear(4 * width, 8), "fp32")


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


# Slow branches and queues


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


# Evaluation


def test_knn_agrees_with_lightly_and_solves_what_is_separable(images: Images) -> None:
    from lightly.utils.benchmarking import knn_predict

    network = ARCHITECTURES.make("small_cnn").build(4, 16, 0).eval()
    features = features_of(network, images, "fp32")
    knn = KnnClassifier(network, features, images.labels, 4, 20).eval()
    others = toy(32, seed=1)
    x = functional.normalize(network.features(others.floats()), dim=1).detach()
    theirs = knn_predict(x, knn.bank.T, images.labels, 4, knn_k=20, knn_t=0.1)
    assert torch.equal(knn(others.floats()).argmax(1), theirs[:, 0])
    apart = torch.eye(4)[images.labels] + 0.1 * unit(64, 4)
    separable = KnnClassifier(network, apart, images.labels, 4, 200)
    assert separable.neighbors == 64, "no more neighbors than images"
    few = KnnClassifier(network, apart, images.labels, 4, 10)
    scores = few.vote(functional.normalize(apart, dim=1) @ few.bank.T)
    assert torch.equal(scores.argmax(1), images.labels)
    assert torch.allclose(scores.exp().sum(1), torch.ones(64), atol=1e-4)


def test_votes_of_neighbors_are_those_of_the_demo_of_moco(images: Images) -> None:
    """Sums of exp(cosine / T) over the k nearest; renjie3/TUE@6b3752b moco_utils.py."""
    knn = KnnClassifier(
        ARCHITECTURES.make("small_cnn").build(4, 16, 0), unit(64, 16), images.labels, 4, 20
    )
    cosine = unit(32, 16) @ knn.bank.T
    near, which = cosine.topk(20, dim=-1)
    one_hot = functional.one_hot(images.labels[which], 4).float()
    sums = (one_hot * (near / 0.1).exp().unsqueeze(-1)).sum(1)
    expected = sums / sums.sum(1, keepdim=True)
    assert float(expected.max(1).values.mean()) < 0.9, "all votes for one class"
    torch.testing.assert_close(knn.vote(cosine).exp(), expected.clamp_min(1e-6))
    assert torch.equal(knn.vote(cosine).argmax(1), sums.argsort(-1, descending=True)[:, 0])


def test_a_collapse_is_heard_after_three_evaluations(images: Images) -> None:
    network = ARCHITECTURES.make("small_cnn").build(4, 16, 0)
    flat = KnnClassifier(network, torch.ones(64, 16), images.labels, 4, 5)
    wide = KnnClassifier(network, unit(64, 16), images.labels, 4, 5)
    assert flat.spread() == pytest.approx(0, abs=1e-5)
    assert wide.spread() == pytest.approx(1, abs=0.1)
    alarm = CollapseAlarm()
    assert [alarm.hear(s) for s in (0.05, 0.05, 0.5, 0.05, 0.05, 0.05, 0.05)] == [
        *[False] * 5,
        True,
        True,
    ]


@pytest.mark.parametrize("passes", [0, 2])
def test_the_probe_learns_and_leaves_the_encoder_alone(passes: int) -> None:
    images, others = scenes(128), scenes(64, seed=1)
    session = two_views("simclr", images)
    session.epoch(0)
    before = {k: t.clone() for k, t in session.framework.state_dict().items()}
    probing = replace(PROBE, passes=passes, recipe=PROBE.recipe.with_(epochs=60, lr=0.2))
    stream = Stream("probe")
    probed = fit_probe(session.network, images, probing, session.views, stream, "fp32").network
    after = session.framework.state_dict()
    for key, tensor in before.items():
        assert torch.equal(tensor, after[key]), f"{key} was changed by the probe"
    assert same(encoder(session), encoder(type("S", (), {"network": probed})()))
    assert score(session.network, others, lambda x: x).acc < 0.4
    assert score(probed, others, lambda x: x).acc > 0.6


def test_a_probe_that_diverges_is_not_taken_for_its_encoder(images: Images) -> None:
    network = ARCHITECTURES.make("small_cnn").build(4, 16, 0)
    probing = replace(PROBE, recipe=PROBE.recipe.with_(lr=1e38))
    with pytest.raises(DivergedError, match=r"linear probe: training diverged in epoch \d: "):
        fit_probe(network, images, probing, Views(), Stream("probe"), "fp32")


# Protocols


def test_a_protocol_sets_parameters_that_a_spec_can_override() -> None:
    def learner(spec: str) -> Any:
        return resolve(f"photo_digits/clean/standard/small_cnn/{spec}/0", None)

    ours, aue = learner("simclr/tp"), learner("simclr/aue")
    assert (ours.learner.hidden, ours.learner.loss_scale) == (512, "base007")
    assert (aue.learner.hidden, aue.learner.loss_scale) == (2048, "none")
    assert str(aue.spec.learner) == "simclr"
    back = learner("simclr(hidden=512)/aue")
    assert back.learner.hidden == 512
    assert back.learner.loss_scale == "none"
    assert str(back.spec.learner) == "simclr(hidden=512)"
    assert learner(str(back.spec.learner) + "/aue").key == back.key
    assert learner("simclr(hidden=2048)/aue").key == aue.key
    assert len({ours.key, aue.key, back.key}) == 3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_probe_is_judged_after_each_of_its_epochs(precision: str, images: Images) -> None:
    """By whole networks with each epoch's head; the last is what `finish` returns."""
    learner = small("simclr")
    session = learner.start(task_of(images, replace(RECIPE, precision=precision)))
    other = scenes(60, 5)

    def view(x: Tensor) -> Tensor:
        return 1 - x

    assert learner.probe_accuracies(session, other, view) == []
    final: Any = session.finish()
    accuracies = learner.probe_accuracies(session, other, view)
    assert len(accuracies) == PROBE.recipe.epochs
    assert accuracies[-1] == score(final, other, view, precision).acc
    assert isinstance(session, TwoViewSession)
    for head, accuracy in zip(session._heads, accuracies, strict=True):
        final.head.load_state_dict(head)
        assert score(final, other, view, precision).acc == accuracy
    assert len(set(accuracies)) > 1


def test_final_accuracies_are_those_that_the_source_prints() -> None:
    """TransPoison@2d08a9c and apbench@9a6fb91: the best over the probe's epochs; AUE: the last."""
    for text, printed in (
        ("tp", "peak"),
        ("apbench", "peak"),
        ("aue", "final"),
        ("quick", "final"),
    ):
        probing = PROTOCOLS.make(text).probing("simclr")
        assert probing.printed == printed
        row = Result("", "", resolved={"probing": probing.resolved()})
        row.history = [{"train_loss": 1.0, "test_acc": a} for a in (0.3, 0.9, 0.6)]
        row.probes = {"clean_test": {"k": 5, "n": 10, "acc": 0.5}}
        row.probe_peak, row.probe_final = 0.7, 0.5
        row.summarize()
        assert row.final_acc == row.last_acc == (0.7 if printed == "peak" else 0.5)
        assert (row.peak_acc, row.knn_peak, row.peak_epoch) == (None, 0.9, 2)
    row = Result("", "", resolved={"probing": None}, history=row.history, probes=row.probes)
    row.summarize()
    assert (row.final_acc, row.peak_acc, row.knn_peak) == (0.5, 0.9, None)


def test_the_probe_is_the_protocols() -> None:
    trial = resolve("photo_digits/clean/standard/resnet18/simclr/tp/0", None)
    assert trial.probing.recipe.epochs == 100
    rates = [trial.probing.recipe.rate(e) for e in (0, 59, 60, 75, 90, 99)]
    assert rates == pytest.approx([1.0, 1.0, 0.2, 0.04, 0.008, 0.008])
    quick = resolve("photo_digits/clean/standard/small_cnn/simclr/quick/0", None)
    assert quick.probing != trial.probing
    supervised = resolve("photo_digits/clean/standard/small_cnn/supervised/tp/0", None)
    assert supervised.resolved()["probing"] is None


@pytest.mark.parametrize("name", VIEWS)
def test_estimates_count_both_views_and_their_making(name: str) -> None:
    """Measured on a CPU core, small_cnn on digits: an epoch takes 2.2 to 3.5 supervised ones."""

    def longer(network: str) -> float:
        point = f"photo_digits/clean/standard/{network}/{{}}/quick(epochs=10)/0"
        own, supervised = (resolve(point.format(each), None) for each in (name, "supervised"))
        return trial_seconds(own, CPU) / trial_seconds(supervised, CPU)

    assert 2.2 < longer("small_cnn") < 3.6
    assert longer("resnet18") == pytest.approx(2, rel=0.1)
