"""Muon against singular values and torch's SGD; groups, rates and batches of a recipe."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn

from raygrid.core.errors import SpecError
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.nn.muon import Muon, orthogonalize
from raygrid.nn.optimizers import grouped, make_optimizer
from raygrid.nn.recipes import Group, Recipe
from raygrid.nn.steps import Batch, Step, classify_step, smoothed
from raygrid.nn.trainer import Trainer
from tests.conftest import toy


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (9, 9)])
def test_newton_schulz_moves_singular_values_and_keeps_singular_vectors(
    shape: tuple[int, int],
) -> None:
    u, _, v = torch.linalg.svd(drawn(*shape), full_matrices=False)
    values = torch.linspace(0.15, 1, min(shape))
    matrix = u @ values.diag() @ v
    made = orthogonalize(matrix, steps=5)
    # In the basis of the singular vectors the result is diagonal, its entries the polynomial's.
    seen = u.mT @ made @ v.mT
    assert torch.allclose(seen, seen.diag().diag(), atol=1e-4)
    expected = values / values.norm()
    for _ in range(5):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    assert torch.allclose(seen.diag(), expected, atol=1e-4)
    assert seen.diag().min() > 0.65
    assert seen.diag().max() < 1.25
    assert torch.allclose(orthogonalize(7 * matrix), orthogonalize(matrix), atol=1e-4)


def test_nothing_comes_of_a_zero_matrix() -> None:
    assert torch.equal(orthogonalize(torch.zeros(3, 4)), torch.zeros(3, 4))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.85])
def test_other_parameters_take_the_steps_of_sgd(momentum: float, nesterov: bool) -> None:
    nesterov = nesterov and momentum > 0
    how = {"lr": 0.1, "momentum": momentum, "weight_decay": 0.02, "nesterov": nesterov}
    mine, theirs = nn.Parameter(drawn(4, 3)), nn.Parameter(drawn(4, 3))
    one = Muon([{"params": [mine]}], **how)  # type: ignore[arg-type]
    other = torch.optim.SGD([theirs], **how)  # type: ignore[arg-type]
    for step in range(4):
        mine.grad = drawn(4, 3, seed=step + 1)
        theirs.grad = mine.grad.clone()
        one.step()
        other.step()
    assert torch.allclose(mine, theirs, atol=1e-6)


def test_a_convolution_is_scaled_and_moves_along_an_orthogonal_matrix() -> None:
    weight = nn.Parameter(drawn(6, 3, 2, 2))
    before = weight.detach() * 6**0.5 / weight.detach().norm()
    optimizer = Muon([{"params": [weight], "orthogonal": True}], 0.24, momentum=0.6, nesterov=True)
    weight.grad = drawn(6, 3, 2, 2, seed=1)
    optimizer.step()
    # The first Nesterov step is 1.6 times the gradient, whose length does not matter.
    moved = (before - weight.detach()).flatten(1) / 0.24
    assert torch.allclose(moved, orthogonalize(weight.grad.flatten(1)), atol=1e-5)
    assert torch.linalg.svdvals(moved).min() > 0.2


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.first(x).mean((2, 3)))
        return out


GROUPS = (
    Group("first.bias", 0.05, 0.85, until=0.5, per_image=True),
    Group("*.bias", 0.05, 0.85, 1e-3, per_image=True),
    Group("first.*", 0.24, 0.6, orthogonal=True),
)
MUON = Recipe(
    epochs=4,
    batch_size=8,
    lr=0.4,
    optimizer="muon",
    schedule="linear",
    stepwise=True,
    groups=GROUPS,
    precision="fp32",
)


def trainer(recipe: Recipe, images: Images) -> Trainer:
    net = Net()

    def step(batch: Batch) -> Step:
        return classify_step(net, batch, "fp32")

    return Trainer(net, step, images, recipe, Stream("test"))


def test_every_parameter_goes_to_the_first_group_that_takes_it() -> None:
    net = Net()
    names = {id(p): name for name, p in net.named_parameters()}
    found = {group: [names[id(p)] for p in params] for group, params in grouped(net, MUON)}
    assert found == {
        GROUPS[0]: ["first.bias"],
        GROUPS[1]: ["head.bias"],
        GROUPS[2]: ["first.weight"],
        None: ["head.weight"],
    }
    vectors = dataclasses.replace(MUON, groups=(Group("*", 0.1, 0.5, orthogonal=True),))
    assert [len(params) for _, params in grouped(net, vectors)] == [2, 2]
    made = make_optimizer(grouped(net, MUON), MUON)
    orthogonal = dict(zip(found, (g["orthogonal"] for g in made.param_groups), strict=True))
    assert [group for group, is_so in orthogonal.items() if is_so] == [GROUPS[2]]


def test_rates_fall_linearly_with_every_step_and_groups_have_their_own() -> None:
    images = toy(24)
    run = trainer(MUON, images)
    seen: list[dict[Group | None, float]] = []

    def update(batch: Batch) -> torch.Tensor:
        rates = [group["lr"] for group in run.optimizer.param_groups]
        seen.append(dict(zip(run.groups, rates, strict=True)))
        return Trainer.update(run, batch)

    run.update = update  # type: ignore[method-assign]
    frozen = []
    for epoch in range(4):
        run.epoch(epoch)
        frozen.append(not run.module.first.bias.requires_grad)  # type: ignore[union-attr]
    shares = [1 - step / 12 for step in range(12)]
    assert [rates[None] for rates in seen] == pytest.approx([0.4 * share for share in shares])
    assert [rates[GROUPS[2]] for rates in seen] == pytest.approx([0.24 * s for s in shares])
    assert [rates[GROUPS[1]] for rates in seen] == pytest.approx([8 * 0.05 * s for s in shares])
    falling = [max(0.0, 1 - step / 6) for step in range(12)]
    assert [rates[GROUPS[0]] for rates in seen] == pytest.approx([8 * 0.05 * s for s in falling])
    assert frozen == [False, False, True, True]


def test_a_rate_of_the_summed_loss_is_the_same_training_at_any_batch_size() -> None:
    """SGD at rate r on the sum over a batch is SGD at r times its size on the mean."""
    images = toy(8)
    recipe = dataclasses.replace(MUON, groups=(Group("*", 0.05, 0.5, 1e-2, per_image=True),))
    run = trainer(recipe, images)
    net = Net()
    net.load_state_dict(run.module.state_dict())
    run.epoch(0)
    loss = nn.functional.cross_entropy(net(images.floats()), images.labels, reduction="sum")
    decay = sum((p**2).sum() for p in net.parameters()) * 1e-2 / 2 * 8
    (loss + decay).backward()
    torch.optim.SGD(net.parameters(), lr=0.05).step()
    for one, other in zip(run.module.parameters(), net.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_a_restored_training_goes_on_as_if_it_had_never_stopped() -> None:
    images = toy(24)
    torch.manual_seed(0)
    whole = trainer(MUON, images)
    start = {k: v.clone() for k, v in whole.module.state_dict().items()}
    for epoch in range(2):
        whole.epoch(epoch)
    saved = {k: v.clone() for k, v in whole.module.state_dict().items()}
    state = {"module": saved, "optimizer": whole.state_dict()["optimizer"]}
    other = trainer(MUON, images)
    other.module.load_state_dict(start)
    other.load_state_dict(state)
    for run in (whole, other):
        run.epoch(2)
    for one, two in zip(whole.module.parameters(), other.module.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("images", "size"), [(50_000, 2000), (40_000, 2000), (4000, 200), (50, 2), (2, 2), (1, 1)]
)
def test_small_sets_are_trained_in_small_batches(images: int, size: int) -> None:
    recipe = Recipe(epochs=8, batch_size=2000, min_steps=160)
    assert recipe.batch_for(images) == size
    if images >= 50:
        assert 8 * images / size >= 160
    assert Recipe(epochs=8, batch_size=2000).batch_for(40) == 40


def test_all_images_are_mirrored_in_every_second_epoch() -> None:
    images = toy(64)
    run = trainer(dataclasses.replace(MUON, flips="alternating"), images)
    epochs = []
    for epoch in range(3):
        seen = torch.zeros(64, dtype=torch.bool)
        for batch in run.batches(epoch):
            assert batch.mirrored is not None
            seen[batch.index] = batch.mirrored
        epochs.append(seen)
    assert torch.equal(epochs[0], ~epochs[1])
    assert torch.equal(epochs[0], epochs[2])
    assert 16 < epochs[0].sum() < 48
    plain = trainer(MUON, images)
    assert next(plain.batches(0)).mirrored is None


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_smoothed_labels_give_the_loss_of_torch(share: float) -> None:
    logits, y = drawn(6, 5), torch.tensor([0, 1, 2, 3, 4, 0])
    made = nn.functional.cross_entropy(logits, smoothed(y, 5, share))
    theirs = nn.functional.cross_entropy(logits, y, label_smoothing=share)
    assert made == pytest.approx(float(theirs), abs=1e-6)
    weights = nn.functional.one_hot(y, 5).float()
    mixed = 0.3 * weights + 0.7 * weights.flip(0)
    made = nn.functional.cross_entropy(logits, smoothed(mixed, 5, share))
    theirs = nn.functional.cross_entropy(logits, mixed, label_smoothing=share)
    assert made == pytest.approx(float(theirs), abs=1e-6)


def test_younger_fields_leave_keys_as_they_were() -> None:
    """What a recipe was in the keys of the first results: nothing else at the defaults."""
    assert json.loads(json.dumps(Recipe(epochs=2).resolved())) == {
        **{"epochs": 2, "batch_size": 128, "lr": 0.1, "optimizer": "sgd", "momentum": 0.9},
        **{"nesterov": False, "weight_decay": 5e-4, "schedule": "cosine", "milestones": []},
        **{"gamma": 0.1, "lr_end": 0.0, "warmup_epochs": 0, "warmup_lr": 0.0, "grad_clip": None},
        **{"shuffle": True, "drop_last": False, "normalize": False, "precision": "bf16"},
    }
    assert Recipe(epochs=2, smoothing=0.2).resolved()["smoothing"] == 0.2
    assert len(MUON.resolved()["groups"]) == 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"smoothing": 1.0}, "smoothing is 1.0, allowed are 0 to below 1"),
        ({"min_steps": -1}, "min_steps is -1, allowed are whole numbers from 0"),
        ({"optimizer": "adam", "groups": GROUPS[:1]}, "adam has no groups"),
        ({"optimizer": "sgd", "groups": GROUPS}, "sgd takes no orthogonal steps, muon does"),
    ],
)
def test_impossible_recipes_are_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        Recipe(epochs=2, **changes)  # type: ignore[arg-type]
