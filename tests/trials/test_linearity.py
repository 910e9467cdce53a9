"""Linearity of poisons and victims, and certified learnability, against what is known of them."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy.stats import binom, norm

from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.networks.network import Network
from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.cli import main as cli
from raygrid.core.errors import DataError, SpecError
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.nn.augment import CropFlip
from raygrid.nn.context import FitContext
from raygrid.nn.networks import freeze, untrained
from raygrid.nn.recipes import Recipe
from raygrid.nn.steps import Batch, Step
from raygrid.nn.trainer import Trainer
from raygrid.nn.two_layer import TwoLayerFit
from raygrid.reports.analysis.learnability import (
    ETAS,
    certified_rank,
    disturbed_accuracies,
    learnability,
)
from raygrid.reports.analysis.linearity import (
    as_pixels,
    linearity_of_poisons,
    linearity_of_victim,
)
from raygrid.reports.analysis.records import Victim
from raygrid.trials.poisons import Poisoned
from raygrid.trials.resolve import resolve
from tests.attacks.toys import moved_weights
from tests.conftest import toy

CPU = torch.device("cpu")


def victim(network: Network, images: Images) -> Victim:
    trial = resolve("photo_digits/clean/standard/small_cnn/supervised/quick/0", None)
    return Victim(trial, freeze(network), images, images)


def poisoned(part: str, images: Images, ratio: float = 1.0) -> Poisoned:
    attack = ATTACKS.make(part)
    poison = attack.poison(images, AttackContext(Stream("poison", ("toy", attack.id, 0))))
    changed, mask = poison.overlay(images, ratio, Stream("ratio"))
    return Poisoned(images, changed, mask, attack, spec=f"toy/{part}", key="")


def test_class_wise_noise_is_told_apart_by_a_line_and_random_noise_is_not() -> None:
    """As many values as images: both are learned, held-out images tell them apart."""
    images = toy(600, 8, 4, signal=0.0)
    parts = ("regions(n=16)", "noise")
    regions, noise = linearity_of_poisons([poisoned(part, images) for part in parts], CPU)
    assert regions["noise_acc"] == regions["noise_held_out_acc"] == 1.0
    assert noise["noise_held_out_acc"] < 0.4
    assert regions["images_held_out_acc"] > 0.7 > regions["clean_held_out_acc"]
    assert regions["n"] == 600
    assert regions["clean_held_out_acc"] == noise["clean_held_out_acc"]


def test_noise_is_that_of_poisoned_images_alone_of_as_many_as_are_asked_for() -> None:
    """Untouched images counted as samples without noise; the first images were of two classes."""
    images = toy(600, 8, 4, signal=0.0)
    images = images.rows(images.labels.argsort(stable=True))
    half = poisoned("regions(n=16)", images, ratio=0.5)
    (found,) = linearity_of_poisons([half], CPU, images=200)
    assert found["n"] == 200
    assert 80 < found["n_poisoned"] < 120
    assert found["noise_acc"] == found["noise_held_out_acc"] == 1.0
    assert found["images_acc"] < 1.0 or found["images_held_out_acc"] < 1.0
    assert found["clean_held_out_acc"] < 0.5  # all four classes are among them
    with pytest.raises(DataError, match=r"4 images of toy/regions.*, allowed are 5 and more"):
        linearity_of_poisons([half], CPU, images=4)


@pytest.mark.slow
def test_udps_two_layer_network_tells_a_poison_from_a_clean_set() -> None:
    """The paper calls a set poisoned whose held-out accuracy is 0.7 and more.

    Crops and flips of 8 pixels move regions of 2 a long way: they cost more than on photographs.
    """
    images = toy(1200, 8, 4, signal=0.0)
    regions, clean = (poisoned(part, images) for part in ("regions(n=16)", "clean"))
    plain = replace(regions, augmentation="none")
    rows = linearity_of_poisons([regions, plain, clean], CPU, images=900, two_layer=True)
    assert [row["n"] for row in rows] == [900, 900, 900]
    found = [row["two_layer_held_out_acc"] for row in rows]
    assert found[1] > 0.95
    assert found[2] < 0.4
    assert found[1] > found[0] > found[2] + 0.3
    assert rows[1]["two_layer_acc"] == 1.0
    assert (rows[2]["n_poisoned"], rows[2]["noise_acc"]) == (0, None)
    assert rows[2]["images_held_out_acc"] == rows[2]["clean_held_out_acc"]
    assert "two_layer_acc" not in linearity_of_poisons([clean], CPU)[0]


def test_the_two_layer_network_is_fitted_as_in_the_code() -> None:
    """poison_detection.py: SGD at 0.01, a tenth after 75 and 90 of 100 epochs, crops and flips."""
    images, epochs, crop = toy(200, 8, 4), 8, CropFlip(1)
    context = FitContext(Stream("fit"), CPU)
    ours = TwoLayerFit(epochs)(images, context, lambda _, batch: crop(batch.x, batch.rng))
    network = untrained(
        ARCHITECTURES.make("two_layer"), images, context.stream.seed("init"), CPU
    ).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    falls = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[6, 7], gamma=0.1)
    order = torch.nn.Linear(1, 1)
    batches = Trainer(order, unused, images, Recipe(epochs, batch_size=128), context.stream).batches
    for epoch in range(epochs):
        for batch in batches(epoch):
            optimizer.zero_grad()
            scores = network(crop(batch.x, batch.rng))
            torch.nn.functional.cross_entropy(scores, batch.y).backward()
            optimizer.step()
        falls.step()
    for mine, theirs in zip(ours.parameters(), network.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def unused(batch: Batch) -> Step:
    raise AssertionError


def test_images_that_a_network_is_not_made_for_are_refused() -> None:
    large = poisoned("clean", toy(8, 72, 4))
    with pytest.raises(DataError, match="toy/clean: two_layer takes images of 8 to 64 pixels"):
        linearity_of_poisons([large], CPU, two_layer=True)


def test_what_is_taken_away_has_no_noise() -> None:
    images = toy(16, 8, 4)
    kept = torch.arange(16) < 8
    attack = ATTACKS.make("withheld")
    gone = Poisoned(images, images.rows(kept), ~kept, attack, spec="toy/withheld", key="")
    with pytest.raises(DataError, match="toy/withheld changes no image"):
        linearity_of_poisons([gone], CPU)


def test_noise_is_stretched_to_all_levels() -> None:
    clean = torch.full((1, 3, 2, 2), 100, dtype=torch.uint8)
    changed = clean.clone()
    changed[0, 0, 0, 0], changed[0, 0, 0, 1] = 92, 108
    pixels = as_pixels(clean, changed)
    assert pixels[0, 0].tolist() == [[0, 255], [128, 128]]
    assert as_pixels(clean, clean).unique().tolist() == [0]


def test_a_step_takes_from_a_linear_victim_what_its_margin_allows() -> None:
    """Scores w x and -w x: a step of r lowers the margin by 2 r |w|_1, exactly."""
    images = toy(64, 8, 2)
    network = ARCHITECTURES.make("linear").build(2, 8, 0)
    rng = torch.Generator().manual_seed(0)
    w = torch.randn(192, generator=rng)
    x = images.floats().flatten(1)
    w -= (x @ w).mean() / x.mean(0).square().sum() * x.mean(0)  # half of the images on each side
    with torch.no_grad():
        network.head.weight.copy_(torch.stack([w, -w]))
    found = linearity_of_victim(victim(network, images), 0.5 / 255)
    lead = (x @ w) * (1 - 2 * images.labels)
    right = lead > 0
    lost = right & (lead < 0.5 / 255 * w.abs().sum())
    assert 0 < int(lost.sum()) < int(right.sum())
    assert found["clean_acc"] == int(right.sum()) / 64
    assert found["fgsm_rate"] == pytest.approx(int(lost.sum()) / int(right.sum()), abs=0.04)
    assert linearity_of_victim(victim(network, images), 1e-9, 10)["fgsm_rate"] == 0


def certify(n: int, q: float, eta: float, sigma: float) -> int:
    """certify.py of NeuralSec/certified-data-learnability@3f34839, with scipy; -1: it abstains."""
    shifted = norm.cdf(norm.ppf(q) + eta / sigma)
    for rank in range(int(-(-shifted * n // 1)), n + 1):
        if binom.cdf(rank - 1, n, shifted) > 0.99:
            return rank - 1
    return -1


@pytest.mark.parametrize("draws", [10, 100, 1000])
@pytest.mark.parametrize("quantile", [0.5, 0.7, 0.9])
def test_ranks_are_those_of_the_code(draws: int, quantile: float) -> None:
    for eta in (0.001, *ETAS, 1.0, 2.0):
        expected = certify(draws, quantile, eta, 0.25)
        found = certified_rank(draws, quantile, eta, 0.25)
        assert found == (None if expected == -1 else expected), eta


def test_certified_accuracies_grow_with_the_distance_and_then_there_are_none() -> None:
    images = toy(64, 8, 2)
    network = ARCHITECTURES.make("small_cnn").build(2, 8, 0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    rows = learnability(victim(network, images), sigma=0.1, draws=60, quantile=0.7)
    assert [row["eta"] for row in rows] == list(ETAS)
    certified = [row["certified_acc"] for row in rows]
    some = [value for value in certified if value is not None]
    assert some == sorted(some)
    assert certified[-1] is None
    assert certified[0] is not None
    assert certified[0] >= rows[0]["median_acc"]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(SpecError, match="quantile is"):
        learnability(victim(network, images), quantile=1.0)


def test_disturbed_accuracies_are_those_of_networks_with_noise_on_every_parameter() -> None:
    images = toy(64, 8, 4)
    surrogate = victim(ARCHITECTURES.make("small_cnn").build(4, 8, 0), images)
    by_hand = []
    for number in range(3):
        network = copy.deepcopy(surrogate.network)
        rng = Stream("learnability", (surrogate.name, 0.1)).generator(number)
        moved_weights(network, 0.1, rng)
        with torch.no_grad():
            said = network(images.floats()).argmax(1)
        by_hand.append(int((said == images.labels).sum()) / 64)
    assert disturbed_accuracies(surrogate, 0.1, 3) == by_hand
    assert len(set(by_hand)) > 1, "else this test could not tell the draws apart"


@pytest.mark.slow
def test_the_command_line_answers_for_a_poison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["evaluate", "linearity", "photo_digits/regions", "--out", str(tmp_path), "--json"]
    assert cli.main(asked) == 0
    said = capsys.readouterr().out
    assert '"noise_held_out_acc": 1.0' in said


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        (("--radius", "2"), "radius is 2, allowed are numbers above 0 to 1"),
        (("--radius", "0"), "radius is 0, allowed are numbers above 0 to 1"),
        (("--images", "0"), "images is 0, allowed are whole numbers from 1"),
    ],
)
def test_wrong_numbers_are_named(
    more: tuple[str, str], fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["evaluate", "linearity", "photo_digits/regions", *more, "--out", str(tmp_path)]
    assert cli.main(asked) == 2
    assert fault in capsys.readouterr().err


def test_a_network_for_poisons_needs_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = "photo_digits/clean/standard/small_cnn/supervised/quick/0"
    asked = ["evaluate", "linearity", trial, "--two-layer", "--out", str(tmp_path)]
    assert cli.main(asked) == 2
    assert (
        "--two-layer applies to poisons (dataset/attack) only, and none is named"
        in capsys.readouterr().err
    )


def test_a_radius_is_of_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["evaluate", "linearity", "photo_digits/regions", "--radius", "4/255"]
    assert cli.main([*asked, "--out", str(tmp_path)]) == 2
    assert (
        "--radius applies to trials only, and only poisons (dataset/attack) are named"
        in capsys.readouterr().err
    )
