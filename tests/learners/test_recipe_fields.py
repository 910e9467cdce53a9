"""Smoothed labels and alternating flips reach everyone who can follow them; others refuse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks.common.surrogate_training import train_surrogate
from raygrid.attacks.common.surrogates import SurrogateRecipe
from raygrid.core.errors import SpecError
from raygrid.core.images import Images
from raygrid.core.registry import Card
from raygrid.core.seeds import Stream
from raygrid.engine.grid import plan
from raygrid.learners import LEARNERS
from raygrid.learners.common.probe import fit_probe
from raygrid.learners.supervised import SupervisedSession
from raygrid.nn.augment import Views, affine_shift
from raygrid.nn.recipes import Probing, Recipe
from raygrid.nn.steps import Batch, classify_step
from raygrid.protocols import PROTOCOLS
from raygrid.protocols.base import Protocol
from tests.conftest import toy
from tests.learners.toys import RECIPE, task_of

CPU = torch.device("cpu")
SHARE = 0.3
SPEC = "photo_digits/clean/standard/small_cnn/{}/{}/0"


@pytest.fixture
def protocol() -> Iterator[type[Protocol]]:
    """A protocol that somebody adds, whose recipes the test sets; gone after it."""

    @PROTOCOLS.register("somebodys")
    @dataclass(frozen=True, kw_only=True)
    class Somebodys(Protocol):
        """Of a test."""

        card = Card(paper="none", code="none")
        recipes: ClassVar[Mapping[str, Recipe]] = {}

    yield Somebodys
    del PROTOCOLS._methods["somebodys"]


def test_the_shared_step_smooths_as_torch_does() -> None:
    images = toy(8)
    network = ARCHITECTURES.make("small_cnn(width=8)").build(4, 16, 0).eval()
    batch = Batch(images.floats(), images.labels, torch.arange(8), torch.Generator(), 0)
    batch.smoothing = SHARE
    step = classify_step(network, batch, "fp32")
    wanted = nn.functional.cross_entropy(network(batch.x), batch.y, label_smoothing=SHARE)
    assert step.loss.item() == pytest.approx(wanted.item(), abs=1e-6)
    batch.smoothing = 0.0
    assert classify_step(network, batch, "fp32").loss.item() != pytest.approx(wanted.item())


def margin(scores: Tensor, labels: Tensor) -> float:
    """How far the score of the label is above the mean of all."""
    own = scores.gather(1, labels[:, None])[:, 0]
    return float((own - scores.mean(1)).mean())


@pytest.mark.slow
def test_a_surrogate_with_smoothed_labels_is_less_sure() -> None:
    images = toy(64, signal=60.0)
    made = {}
    for share in (0.0, SHARE):
        how = Recipe(epochs=12, batch_size=16, lr=0.05, smoothing=share, precision="fp32")
        recipe = SurrogateRecipe("some", "small_cnn(width=8)", how, "none")
        made[share] = train_surrogate(recipe, images, Stream("surrogate"), CPU)
    sure, smooth = (margin(network(images.floats()), images.labels) for network in made.values())
    assert 0 < smooth < sure - 0.5


def halves(n: int = 32) -> Images:
    """Gray images with a white left half: which side is white tells whether one was mirrored."""
    pixels = torch.full((n, 3, 32, 32), 90, dtype=torch.uint8)
    pixels[..., :16] = 255
    return Images(pixels, torch.arange(n) % 2, 2)


@pytest.mark.parametrize("augmentation", ["crop_flip", "crop4_flip", "affine_shift", "views:0.1"])
def test_a_surrogate_sees_every_image_mirrored_in_every_second_epoch(
    augmentation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def looking(model: nn.Module, batch: Batch, precision: str) -> Any:
        left, right = batch.x[..., 6:12].mean((1, 2, 3)), batch.x[..., 20:26].mean((1, 2, 3))
        seen.append((batch.index, left < right))
        assert batch.smoothing == SHARE
        return classify_step(model, batch, precision)

    monkeypatch.setattr("raygrid.attacks.common.surrogate_training.classify_step", looking)
    how = Recipe(epochs=3, batch_size=32, lr=0.01, precision="fp32")
    how = how.with_(flips="alternating", smoothing=SHARE)
    recipe = SurrogateRecipe("some", "small_cnn(width=8)", how, augmentation)
    train_surrogate(recipe, halves(), Stream("surrogate"), CPU)
    first, second, third = (side[index.argsort()] for index, side in seen)
    assert torch.equal(first, ~second)
    assert torch.equal(first, third)
    assert 4 < int(first.sum()) < 28


def test_shifts_stay_as_they_were_drawn_where_flips_are_set() -> None:
    x = toy(16).floats()
    drawn = affine_shift(x, torch.Generator().manual_seed(1))
    draws = torch.rand(16, 3, generator=torch.Generator().manual_seed(1))
    same = affine_shift(x, torch.Generator().manual_seed(1), 0.0, draws[:, 2] < 0.5)
    assert torch.equal(drawn, same)


def test_a_probe_smooths_the_labels_of_its_recipe() -> None:
    images, stream = toy(64, signal=60.0), Stream("probe")
    network = ARCHITECTURES.make("small_cnn(width=8)").build(4, 16, 0).eval()
    found = []
    for share in (0.0, 0.5):
        recipe = Recipe(40, batch_size=32, lr=0.5, smoothing=share, precision="fp32")
        fitted = fit_probe(network, images, Probing(recipe), Views(), stream, "fp32")
        found.append(margin(fitted.network(images.floats()).detach(), images.labels))
    assert 0 < found[1] < found[0]
    with pytest.raises(SpecError, match="flips cannot alternate in the kept features of a probe"):
        Probing(Recipe(epochs=2, flips="alternating"))


@pytest.mark.parametrize("name", ["supervised", "finetune", "linear_probe"])
def test_learners_with_labels_start_from_smoothed_ones(name: str) -> None:
    """finetune is supervised with another start, linear_probe has a step of its own."""
    images = toy(16)
    recipe = RECIPE.with_(smoothing=SHARE, batch_size=16)
    session: Any = LEARNERS.make(name).start(task_of(images, recipe, augmentation=None))
    batch = next(session.trainer.batches(0))
    assert batch.smoothing == SHARE
    model = session.classifier().eval()
    loss = session.step(batch).loss.item()
    wanted = nn.functional.cross_entropy(model(batch.x), batch.y, label_smoothing=SHARE)
    assert loss == pytest.approx(wanted.item(), abs=1e-5)
    assert isinstance(session, SupervisedSession) == (name != "linear_probe")


SMOOTHED = "smoothing is 0.1, but the loss of two views smooths no labels"
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "simclr": ({"smoothing": 0.1}, SMOOTHED),
    "supcl": ({"smoothing": 0.1}, SMOOTHED),
    "byol": ({"flips": "alternating"}, "flips of two views are random and cannot alternate"),
    "moco": ({"flips": "alternating"}, "flips of two views are random and cannot alternate"),
    "simsiam": (
        {"smoothing": 0.2},
        "smoothing is 0.2, but the loss of two views smooths no labels",
    ),
    "supervised(frozen_views=true)": (
        {"flips": "alternating"},
        "frozen views are mirrored once and for all, flips cannot alternate",
    ),
    "linear_probe(cache=2)": (
        {"flips": "alternating"},
        "flips cannot alternate in kept features, cache=0 keeps none",
    ),
}


@pytest.mark.parametrize("learner", REFUSED)
def test_a_recipe_that_a_learner_cannot_follow_is_refused_at_planning(
    learner: str, protocol: type[Protocol]
) -> None:
    changes, says = REFUSED[learner]
    name = learner.partition("(")[0]
    recipe = Recipe(epochs=1, batch_size=32)
    protocol.recipes = {name: recipe.with_(**changes)}
    with pytest.raises(SpecError) as refused:
        plan([SPEC.format(learner, "somebodys")], None)
    assert str(refused.value) == f"{learner} with somebodys: {says}"
    protocol.recipes = {name: recipe}
    assert plan([SPEC.format(learner, "somebodys")], None)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_asks_for_what_its_learners_can_do(name: str) -> None:
    """Of every learner that it has a recipe for, with the networks that change it."""
    protocol = PROTOCOLS.tiny(name)
    networks = ("", *protocol.by_architecture)
    for learner in filter(protocol.has, LEARNERS):
        for network in networks:
            LEARNERS.make(learner).check(
                protocol.recipe(learner, "cifar10", 32, architecture=network)
            )
