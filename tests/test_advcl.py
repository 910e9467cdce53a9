"""AdvCL: its views, its batch norms, its loss, and a training through the learner."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from raygrid.architectures import ARCHITECTURES
from raygrid.augment import CropFlip
from raygrid.contrastive import SimClr
from raygrid.contrastive.base import Branch
from raygrid.defenses import DEFENSES
from raygrid.defenses.advcl import ADVERSARIAL, BENIGN, AdvCl, SplitNorm, embed, high_pass
from raygrid.defenses.base import Chain
from raygrid.grid import plan
from raygrid.learners import LEARNERS
from raygrid.learners.base import Session, Task
from raygrid.seeds import Stream
from raygrid.training import PROBING, Recipe
from tests.conftest import toy


def rng(seed: int = 0) -> torch.Generator:
    return Stream("advcl", (seed,)).generator()


def framework(defense: AdvCl) -> SimClr:
    """A small one on 16-pixel images, in training mode, its buffers away from their start."""
    network = ARCHITECTURES.make("small_cnn").build(4, 16, 0)
    head = torch.nn.Linear(network.width, 8)
    made = SimClr(Branch(network, head, "fp32"), temperature=0.5, factor=3.0)
    defense.prepare(made)
    for norms in (BENIGN, ADVERSARIAL):
        embed(made, toy(16, seed=norms).floats(), norms)
    return made


def nt_xent(views: list[torch.Tensor], temperature: float) -> torch.Tensor:
    """Counted by hand: mean over anchors and their positives of -log of a softmax share."""
    z = torch.cat(views)
    n, total = len(views[0]), []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        scores = {j: z[i] @ z[j] / temperature for j in others}
        whole = torch.logsumexp(torch.stack(list(scores.values())), 0)
        positives = [scores[j] - whole for j in others if j % n == i % n]
        total.append(-torch.stack(positives).mean())
    return torch.stack(total).mean()


@pytest.mark.parametrize("cutoff", [0.0, 3.0, 8.0])
def test_the_filtered_view_has_no_low_frequencies(cutoff: float) -> None:
    x = torch.rand(2, 3, 16, 16, generator=rng())
    left, all_ = (torch.fft.fft2(v).abs() for v in (high_pass(x, cutoff), x))
    cycles = torch.tensor([min(i, 16 - i) for i in range(16)]).float()
    low = cycles[:, None] ** 2 + cycles**2 <= cutoff**2
    assert left[..., low].max() < 1e-4
    assert torch.allclose(left[..., ~low], all_[..., ~low], atol=1e-4)
    assert low.sum() == {0.0: 1, 3.0: 29, 8.0: int(low.sum())}[cutoff]


def test_the_adversarial_view_stays_in_its_ball_and_leaves_the_model_alone() -> None:
    defense = AdvCl()
    made = framework(defense)
    made.branch.network.head.bias.requires_grad_(False)
    x = toy(8).floats()
    benign = torch.cat([toy(8, seed=s).floats() for s in (1, 2)])
    before = {name: value.clone() for name, value in made.state_dict().items()}
    moved = defense.perturb(made, x, benign, rng())
    assert (moved - x).abs().max() <= 8 / 255 + 1e-6
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert made.training
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())
    assert all(p.grad is None for p in made.parameters())
    assert [n for n, p in made.named_parameters() if not p.requires_grad] == [
        "branch.network.head.bias"
    ]
    made.eval()
    start = AdvCl(steps=0).perturb(made, x, benign, rng())
    others = embed(made, benign, BENIGN).split(8)
    scores = [nt_xent([embed(made, v, ADVERSARIAL), *others], 0.5) for v in (start, moved)]
    assert scores[1] > scores[0]


def test_without_steps_and_radius_it_is_nt_xent_over_four_views() -> None:
    defense = AdvCl(steps=0, radius=0.0)
    made = framework(defense).eval()
    x = toy(6).floats()
    views = toy(6, seed=1).floats(), toy(6, seed=2).floats()
    loss = defense.contrast(made, x, views, torch.arange(6), rng())
    x0 = CropFlip(2)(x, rng())
    z = [embed(made, v, BENIGN) for v in (*views, high_pass(x0, 8.0))]
    assert loss.item() == pytest.approx(
        3.0 * nt_xent([embed(made, x0, ADVERSARIAL), *z], 0.5).item()
    )


def test_every_view_touches_its_own_batch_norms() -> None:
    made = framework(AdvCl())
    pairs = [m.norms for m in made.modules() if isinstance(m, SplitNorm)]
    assert len(pairs) == 3
    for norms in (BENIGN, ADVERSARIAL):
        before = [[n.running_mean.clone() for n in pair] for pair in pairs]
        embed(made, toy(8, seed=5).floats(), norms)
        for pair, old in zip(pairs, before, strict=True):
            same = [torch.equal(n.running_mean, o) for n, o in zip(pair, old, strict=True)]
            assert same == [norms != BENIGN, norms != ADVERSARIAL]
    with torch.no_grad():
        x = toy(8).floats()
        made.eval()
        assert torch.equal(
            torch.nn.functional.normalize(made.branch(x)), embed(made, x, ADVERSARIAL)
        )


def session(defense: str) -> Session:
    images = toy(64)
    probing = PROBING.recipe.with_(epochs=20, batch_size=32)
    task = Task(
        train=images,
        labeled=images,
        architecture=ARCHITECTURES.make("small_cnn"),
        recipe=Recipe(epochs=3, batch_size=32, lr=2e-3, optimizer="adamw", schedule="constant"),
        defense=Chain((DEFENSES.make(defense),)),
        streams={k: Stream(k) for k in ("init", "data", "views", "probe")},
        augmentation=None,
        normalization=None,
        probing=type(PROBING)(probing),
    )
    learner = LEARNERS.make("simclr(hidden=16, output=8, neighbors=3, batch_norm=true)")
    return learner.start(task)


def test_an_encoder_is_trained_probed_and_restored() -> None:
    run, again = session("advcl(steps=1)"), session("advcl(steps=1)")
    first = run.epoch(0)
    again.load_state_dict(copy.deepcopy(run.state_dict()))
    second = run.epoch(1)
    assert math.isfinite(first["train_loss"])
    assert second == again.epoch(1)
    for epoch in range(2, 30):
        run.epoch(epoch)
    probed = run.finish()
    names = probed.state_dict()
    assert sum(name.endswith("norms.1.running_mean") for name in names) == 3
    scores = probed.eval()(toy(64).floats())
    assert (scores.argmax(1) == toy(64).labels).float().mean() > 0.5


@pytest.mark.parametrize(
    ("learner", "says"),
    [
        ("supervised", "advcl has no meaning for the learner supervised"),
        ("byol", "advcl is made for the learner simclr, not byol"),
        ("supcl", "advcl is made for the learner simclr, not supcl"),
    ],
)
def test_other_learners_are_skipped(learner: str, says: str) -> None:
    made = plan([f"photo_digits/lsp/advcl/small_cnn/{learner}/quick/0"], None)
    assert made.skips[0].reason == says
    assert plan(["photo_digits/lsp/advcl/small_cnn/simclr/quick/0"], None).trials
