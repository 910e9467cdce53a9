"""Linearity of poisons and victims, and certified learnability, against what is known of them."""

from __future__ import annotations

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
from raygrid.nn.trainer import freeze
from raygrid.reports.analysis.learnability import ETAS, certified_rank, learnability
from raygrid.reports.analysis.linearity import (
    as_pixels,
    linearity_of_poisons,
    linearity_of_victim,
)
from raygrid.reports.analysis.records import Victim
from raygrid.trials.poisons import Poisoned
from raygrid.trials.resolve import resolve
from tests.conftest import toy

CPU = torch.device("cpu")


def victim(network: Network, images: Images) -> Victim:
    trial = resolve("photo_digits/clean/standard/small_cnn/supervised/quick/0", None)
    return Victim(trial, freeze(network), images, images)


def poisoned(part: str, images: Images) -> Poisoned:
    attack = ATTACKS.make(part)
    context = AttackContext(Stream("poison", ("toy", attack.id, 0)))
    pixels = attack.poison(images, context).pixels
    mask = torch.ones(len(images), dtype=torch.bool)
    changed = images.with_pixels(pixels)
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


@pytest.mark.slow
def test_the_command_line_answers_for_a_poison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["evaluate", "linearity", "photo_digits/regions", "--out", str(tmp_path), "--json"]
    assert cli.main(asked) == 0
    said = capsys.readouterr().out
    assert '"noise_held_out_acc": 1.0' in said
    wrong = ["evaluate", "linearity", "photo_digits/regions", "--radius", "2"]
    assert cli.main([*wrong, "--out", str(tmp_path)]) != 0
