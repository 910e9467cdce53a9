"""AdvCL and RoCL: their views, batch norms, pseudo-labels and losses, and trainings with them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.networks.split_norm import SplitNorm, routed, split_norms
from raygrid.core.errors import DataError
from raygrid.core.seeds import Stream
from raygrid.core.speed import GPU
from raygrid.defenses import DEFENSES
from raygrid.defenses.advcl import (
    ADVERSARIAL,
    BENIGN,
    CLUSTER_HEADS,
    LABELED,
    AdvCl,
    embed,
    high_pass,
    predict,
)
from raygrid.defenses.chain import Chain
from raygrid.defenses.rocl import RoCl
from raygrid.engine.grid import plan
from raygrid.learners import LEARNERS
from raygrid.learners.base import Task
from raygrid.learners.common.two_views import TwoViewSession
from raygrid.nn.augment import CropFlip
from raygrid.nn.context import FitContext
from raygrid.nn.contrastive.base import Branch
from raygrid.nn.contrastive.cluster_heads import ClusterHeads
from raygrid.nn.contrastive.pairs import SimClrLoss
from raygrid.nn.contrastive.pseudo_labels import Clustering, k_means
from raygrid.nn.recipes import PROBING, Recipe
from raygrid.nn.steps import Batch
from raygrid.storage.store import Bundle
from raygrid.trials.artifacts import Artifact
from raygrid.trials.catalog import Catalog
from raygrid.trials.context import TrialContext
from raygrid.trials.resolve import resolve
from raygrid.trials.run import run_trial
from tests import plugin as plugin
from tests.conftest import toy

CLUSTERS = torch.stack([torch.arange(16) % 2, torch.arange(16) % 5], 1)
LITTLE = "ce_weight=0.2, clusters=2:4, encoder=small_cnn, encoder_epochs=1, steps=1"
FACTOR = 0.5 / 0.07  # of the loss at temperature 0.5 and scale base007


def rng(seed: int = 0) -> torch.Generator:
    return Stream("advcl", (seed,)).generator()


def framework(defense: AdvCl) -> SimClrLoss:
    """A small one on 16-pixel images, in training mode, its buffers away from their start."""
    network = ARCHITECTURES.make("small_cnn").build(4, 16, 0)
    head = torch.nn.Linear(network.width, 8)
    made = SimClrLoss(Branch(network, head, "fp32"), temperature=0.5, scale="base007")
    defense.prepare(made, {"clusters": CLUSTERS} if defense.ce_weight else {})
    for norms in range(3 if defense.ce_weight else 2):
        embed(made, toy(16, seed=norms).floats(), norms)
    return made


def batch(x: Tensor) -> Batch:
    index = torch.arange(len(x))
    return Batch(x, index % 4, index, rng(), 0)


def unchanged(made: nn.Module, act: Callable[[], Tensor], met: tuple[int, ...] = ()) -> Tensor:
    """What `act` returns; it may change neither weights nor modes, gradients or buffers.

    met: sets of batch norms whose running statistics it does change, each of them.
    """
    made.branch.network.head.bias.requires_grad_(False)  # type: ignore[union-attr]
    before = {name: value.clone() for name, value in made.state_dict().items()}
    out = act()
    assert made.training
    moved = {n for n, value in made.state_dict().items() if not torch.equal(before[n], value)}
    names = [name for name, module in made.named_modules() if isinstance(module, SplitNorm)]
    wanted = {f"{name}.norms.{which}" for name in names for which in met}
    assert {name.rpartition(".")[0] for name in moved} == wanted
    assert all("running_" in name or "num_batches" in name for name in moved)
    assert all(p.grad is None for p in made.parameters())
    assert [n for n, p in made.named_parameters() if not p.requires_grad] == [
        "branch.network.head.bias"
    ]
    return out


def in_ball(moved: Tensor, x: Tensor, radius: float = 8 / 255) -> bool:
    inside = bool((moved - x).abs().max() <= radius + 1e-6)
    return inside and bool(moved.min() >= 0) and bool(moved.max() <= 1)


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
    low = cycles[:, None] ** 2 + cycles**2 < cutoff**2  # AdvCL@24cb7a6: `<` goes, the circle stays
    assert left[..., low].max() < 1e-4 if cutoff else not low.any()
    assert torch.allclose(left[..., ~low], all_[..., ~low], atol=1e-4)
    assert low.sum() == {0.0: 0, 3.0: 25, 8.0: int(low.sum())}[cutoff]


def test_the_adversarial_view_stays_in_its_ball_and_leaves_the_weights_alone() -> None:
    """It climbs what the network in training mode says, each view a batch of its own."""
    defense = AdvCl()
    made = framework(defense)
    x = toy(8).floats()
    benign = torch.cat([toy(8, seed=s).floats() for s in (1, 2)])
    moved = unchanged(
        made, lambda: defense.perturb(made, x, benign, rng()), met=(BENIGN, ADVERSARIAL)
    )
    assert in_ball(moved, x)
    start = unchanged(made, lambda: AdvCl(steps=0).perturb(made, x, benign, rng()))
    others = [embed(made, view, BENIGN) for view in benign.split(8)]
    scores = [nt_xent([embed(made, v, ADVERSARIAL), *others], 0.5) for v in (start, moved)]
    assert scores[1] > scores[0]


def test_the_copy_for_pseudo_labels_climbs_their_loss() -> None:
    defense = AdvCl(ce_weight=0.2)
    made, x, index = framework(defense), toy(8).floats(), torch.arange(8)
    moved = unchanged(made, lambda: defense.mislead(made, x, index, rng()), met=(LABELED,))
    assert in_ball(moved, x)
    start = AdvCl(ce_weight=0.2, steps=0).mislead(made, x, index, rng())
    assert predict(made, moved, index) > predict(made, start, index)


def still(defense: AdvCl) -> tuple[Tensor, float]:
    """The loss in eval mode, and what is NT-Xent over the four views counted by hand."""
    made = framework(defense).eval()
    x = toy(6).floats()
    views = toy(6, seed=1).floats(), toy(6, seed=2).floats()
    loss = defense.contrast(made, batch(x), views)
    x0 = CropFlip(2)(x, rng())
    z = [embed(made, v, BENIGN) for v in (*views, high_pass(x0, 8.0))]
    four = FACTOR * nt_xent([embed(made, x0, ADVERSARIAL), *z], 0.5).item()
    if not defense.ce_weight:
        return loss, four
    with routed(made, LABELED):
        features = made.branch.network.features(x0)
    heads = made.get_submodule(CLUSTER_HEADS).heads
    assert isinstance(heads, nn.ModuleList)
    scores = [head(features) for head in heads]
    assert [s.shape[1] for s in scores] == [2, 5]
    losses = [functional.cross_entropy(s, CLUSTERS[:6, i]).item() for i, s in enumerate(scores)]
    return loss, four + defense.ce_weight * sum(losses) / 2


def test_without_steps_and_radius_it_is_nt_xent_over_four_views() -> None:
    loss, expected = still(AdvCl(steps=0, radius=0.0))
    assert loss.item() == pytest.approx(expected)


def test_with_pseudo_labels_the_mean_of_the_heads_is_added() -> None:
    loss, expected = still(AdvCl(steps=0, radius=0.0, ce_weight=0.7))
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("weight", [0.0, 0.2])
def test_every_view_touches_its_own_batch_norms(weight: float) -> None:
    made = framework(AdvCl(ce_weight=weight))
    groups = [m.norms for m in made.modules() if isinstance(m, SplitNorm)]
    sets = 3 if weight else 2
    assert [len(norms) for norms in groups] == [sets] * 3
    for which in range(sets):
        before = [[n.get_buffer("running_mean").clone() for n in norms] for norms in groups]
        if which == LABELED:
            predict(made, toy(8, seed=5).floats(), torch.arange(8))
        else:
            embed(made, toy(8, seed=5).floats(), which)
        for norms, old in zip(groups, before, strict=True):
            now = [n.get_buffer("running_mean") for n in norms]
            same = [torch.equal(n, o) for n, o in zip(now, old, strict=True)]
            assert same == [number != which for number in range(sets)]
    with torch.no_grad():
        x = toy(8).floats()
        made.eval()
        assert torch.equal(functional.normalize(made.branch(x)), embed(made, x, ADVERSARIAL))


def test_split_norms_go_back_to_the_usual_set() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    split_norms(model, 3, usual=2)
    with suppress(ValueError), routed(model, 0):
        model(torch.rand(4, 2))
        raise ValueError
    model(torch.rand(4, 2))
    norm = model[1]
    assert isinstance(norm, SplitNorm)
    assert [int(n.get_buffer("num_batches_tracked")) for n in norm.norms] == [1, 0, 1]


# --- pseudo-labels -------------------------------------------------------------------------------


def test_clusters_of_separate_groups_are_the_groups() -> None:
    groups = torch.arange(60) % 4
    points = torch.eye(4)[groups] + 0.01 * torch.randn(60, 4, generator=rng())
    found = k_means(points.numpy(), 4, seed=1)
    assert found.dtype == torch.int64
    for group in range(4):
        assert len(found[groups == group].unique()) == 1
    assert len(found.unique()) == 4


def fit_context(seed: int = 0) -> FitContext:
    return FitContext(Stream("study", ("toy", seed)), torch.device("cpu"))


def test_images_are_clustered_by_an_encoder_trained_on_them() -> None:
    recipe = Recipe(epochs=8, batch_size=32, lr=2e-3, optimizer="adamw", precision="fp32")
    how = Clustering((2, 4), "small_cnn", recipe)
    images = toy(96, signal=72.0)
    found, again = how.labels(images, fit_context()), how.labels(images, fit_context())
    assert torch.equal(found, again)
    assert (found.shape, found.dtype) == ((96, 2), torch.int64)
    assert found.amax(0).tolist() == [1, 3]
    features = how.features(images, fit_context())
    assert torch.allclose(features.norm(dim=1), torch.ones(96), atol=1e-5)
    table = functional.one_hot(found[:, 1]).T @ functional.one_hot(images.labels)
    assert table.max(1).values.sum() / 96 > 0.5, "clusters have nothing to do with the pictures"


def test_more_clusters_than_images_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clustering, "features", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(DataError, match="500 clusters of 64 images"):
        AdvCl(ce_weight=0.2).study(toy(64), fit_context())
    text = "photo_digits/clean/advcl(ce_weight=0.2, clusters=2:5000)/small_cnn/simclr/quick/0"
    assert str(resolve(text, None).skip()).startswith("advcl asks for 5000 clusters of ")


def test_heads_are_counted_and_left_out_of_what_is_kept() -> None:
    heads = ClusterHeads(CLUSTERS, 7)
    assert sorted(heads.state_dict()) == [
        f"heads.{i}.{w}" for i in (0, 1) for w in ("bias", "weight")
    ]
    assert heads(torch.rand(3, 7), torch.tensor([0, 5, 15])).shape == ()


def test_the_study_is_made_once_for_a_set_and_a_defense() -> None:
    text = "photo_digits/lsp/{}/{}/simclr(neighbors=3)/quick(epochs=1, {})/0"
    where = "small_cnn", "batch_size=32"
    trial = resolve(text.format(f"advcl({LITTLE})", *where), None)
    made = trial.study
    assert made is not None
    assert made in trial.artifacts
    assert made.needs() == (trial.data, trial.poison)
    others = [
        resolve(text.format(f"advcl({LITTLE})", "resnet18", "lr=0.1"), None),
        resolve(text.format(f"advcl({LITTLE}, radius=0.1)", *where), None),
        resolve(text.format(f"grayscale+advcl({LITTLE})", *where), None),
        resolve(text.format(f"advcl({LITTLE})", "small_cnn", "holdout=0.2"), None),
    ]
    keys = [o.study.key for o in others if o.study is not None]
    assert [key == made.key for key in keys] == [True, False, False, False]
    assert others[2].study is not None
    assert others[2].study.needs() == (others[2].purified,)
    assert resolve(text.format("advcl", *where), None).study is None
    assert made.seconds(GPU) > 0


@pytest.mark.parametrize("defense", [f"advcl({LITTLE})", f"grayscale+advcl({LITTLE})"])
def test_a_trial_with_pseudo_labels(
    defense: str,
    catalog: Catalog,
    fetch: Callable[[Artifact], Bundle],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The study is of the very rows that the learner is given."""
    seen: dict[str, Task] = {}
    start = LEARNERS["simclr"].start

    def spy(self: Any, task: Task) -> Any:
        seen.update(task=task)
        return start(self, task)

    monkeypatch.setattr(LEARNERS["simclr"], "start", spy)
    protocol = "quick(epochs=1, batch_size=32, holdout=0.25)"
    text = f"dots/clean/{defense}/small_cnn/simclr(neighbors=3)/{protocol}/0"
    trial = resolve(text, catalog)
    result = run_trial(trial, fetch, TrialContext())
    assert result.error is None
    assert trial.study is not None
    assert result.artifacts["study"] == trial.study.key
    clusters = fetch(trial.study).tensors["clusters"]
    assert torch.equal(seen["task"].study["clusters"], clusters)
    assert len(clusters) == len(seen["task"].train) < trial.dataset.train_size
    images = seen["task"].train
    stream = Stream("study", ("dots", "advcl", 0))
    shop = FitContext(stream, torch.device("cpu"), augmentation=trial.dataset.augmentation)
    again = trial.defense.links[-1].study(images, shop)
    assert torch.equal(again["clusters"], clusters)


# --- trainings -----------------------------------------------------------------------------------


def session(
    defense: str, learner: str = "simclr(hidden=16, output=8, neighbors=3)"
) -> TwoViewSession:
    images = toy(64, signal=48.0)
    probing = PROBING.recipe.with_(epochs=20, batch_size=32)
    chain = Chain((DEFENSES.make(defense),))
    made = chain.student
    task = Task(
        train=images,
        labeled=images,
        architecture=ARCHITECTURES.make("small_cnn"),
        recipe=Recipe(epochs=3, batch_size=32, lr=2e-3, optimizer="adamw", schedule="constant"),
        defense=chain,
        streams={k: Stream(k) for k in ("init", "data", "views", "probe")},
        augmentation=None,
        normalization=None,
        probing=type(PROBING)(probing),
        study={} if made is None else made.study(images, fit_context()),
    )
    run = LEARNERS.make(learner).start(task)
    assert isinstance(run, TwoViewSession)
    return run


@pytest.mark.parametrize(
    ("defense", "sets", "learner"),
    [
        ("advcl(steps=1)", 2, "simclr(hidden=16, output=8, neighbors=3, batch_norm=true)"),
        (f"advcl({LITTLE})", 3, "simclr(hidden=16, output=8, neighbors=3)"),
        ("rocl(steps=1)", 0, "simclr(hidden=16, output=8, neighbors=3)"),
        ("rocl(steps=1)", 0, "byol(hidden=16, output=8, neighbors=3, momentum=0.9)"),
    ],
)
def test_an_encoder_is_trained_and_restored(defense: str, sets: int, learner: str) -> None:
    run, again = session(defense, learner), session(defense, learner)
    first = run.epoch(0)
    again.load_state_dict(copy.deepcopy(run.state_dict()))
    second = run.epoch(1)
    assert math.isfinite(first["train_loss"])
    assert second == again.epoch(1)
    split = [m for m in run.network.modules() if isinstance(m, SplitNorm)]
    assert [len(m.norms) for m in split] == [sets] * (3 if sets else 0)
    bare = ARCHITECTURES.make("small_cnn").build(4, 16, 0)
    DEFENSES.make(defense).prepare(bare, {})
    bare.load_state_dict(run.network.state_dict())


@pytest.mark.parametrize("defense", ["advcl(steps=1)", "rocl(steps=1)"])
def test_an_encoder_is_probed(defense: str) -> None:
    run = session(defense, "simclr(hidden=16, output=8, neighbors=3, batch_norm=true)")
    for epoch in range(30):
        run.epoch(epoch)
    scores = run.finish().eval()(run.task.train.floats())
    assert (scores.argmax(1) == run.task.train.labels).float().mean() > 0.5


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


# --- RoCL ----------------------------------------------------------------------------------------


def test_the_third_view_stays_in_its_ball_and_agrees_less() -> None:
    defense, x, b = RoCl(), toy(8).floats(), toy(8, seed=1).floats()
    made = framework(AdvCl())
    moved = unchanged(made, lambda: defense.perturb(made, x, b, batch(x)))
    assert in_ball(moved, x)
    made.eval()
    start = RoCl(steps=0).perturb(made, x, b, batch(x))
    scores = [nt_xent([made.embed(v), made.embed(b)], 0.5) for v in (start, moved)]
    assert scores[1] > scores[0]


def test_rocl_sums_six_blocks_of_three_views() -> None:
    made = framework(AdvCl()).eval()
    a, b = toy(5, seed=1).floats(), toy(5, seed=2).floats()
    defense = RoCl(steps=0, weight=0.25)
    loss = defense.contrast(made, batch(toy(5).floats()), (a, b))
    x = defense.perturb(made, a, b, batch(a))
    z = torch.cat([made.embed(v) for v in (a, b, x)])
    shares = (z @ z.T / 0.5).fill_diagonal_(-math.inf).log_softmax(1)
    pairs = [(i, j) for i in range(15) for j in range(15) if i != j and i % 5 == j % 5]
    six = -sum(shares[i, j].item() for i, j in pairs) / 15
    both = nt_xent([made.embed(x), made.embed(b)], 0.5).item()
    assert len(pairs) == 30
    assert loss.item() == pytest.approx(FACTOR * (six + 0.25 * both))


@pytest.mark.parametrize("learner", ["byol", "moco", "simsiam", "supcl"])
def test_rocl_moves_slow_parts_once(learner: str) -> None:
    small = {"byol": "hidden=16, output=8, ", "moco": "hidden=16, output=8, queue=64, "}
    settings = small.get(learner, "hidden=16, ")
    run = session("rocl(steps=0, radius=0)", f"{learner}({settings}neighbors=3)")
    plain = session("standard", f"{learner}({settings}neighbors=3)")
    a, b = toy(32, seed=1).floats(), toy(32, seed=2).floats()
    for made in (run.framework, plain.framework):
        made.eval()
    given = batch(toy(32).floats())
    loss = RoCl(steps=0, radius=0.0).contrast(run.framework, given, (a, b))
    again = plain.framework(a, b, given.y, move=False)
    once = plain.framework(a, b, given.y)
    assert math.isfinite(loss.item())
    assert loss.item() == pytest.approx((again + once).item(), rel=0.05)
    state = plain.framework.state_dict()
    for name, value in run.framework.state_dict().items():
        assert torch.equal(value, state[name]), name
