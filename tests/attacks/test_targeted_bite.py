"""Attacks on a target raise its odds for the wanted label, in the order that their papers expect.

Shifts of the log-odds against the clean victim of the same set-up, 25 poisons in 250 images of the
class, 32/255, no augmentation, frozen small_cnn. Means of ten set-ups on CIFAR-10: noise -0.01,
released collision 1.02, hull 1.32, collision 2.02, bullseye 3.44. On digits the hull lies above
the collision, 1.8 against 1.4 (set-ups 0 and 1).
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import ClassVar

import pytest

from raygrid.attacks import ATTACKS
from raygrid.core.spec import Part
from raygrid.datasets import DATASETS
from raygrid.datasets.base import Dataset
from raygrid.datasets.halves import Half
from raygrid.storage.store import Bundle
from raygrid.trials.artifacts import Artifact
from raygrid.trials.catalog import Catalog
from raygrid.trials.context import TrialContext
from raygrid.trials.resolve import resolve
from raygrid.trials.run import run_trial

Fetch = Callable[[Artifact], Bundle]
PARTS = {
    "noise": "base_noise(budget=32/255)",
    "released": "feature_collision(budget=32/255, variant=released)",
    "hull": "convex_polytope(budget=32/255)",
    "collision": "feature_collision(budget=32/255)",
    "bullseye": "bullseye_polytope(budget=32/255)",
}


@dataclass(frozen=True, kw_only=True)
class _CifarPart(Half):
    """Some classes of CIFAR-10, 400 training and 100 test images of each."""

    of: ClassVar[Dataset] = DATASETS.make("cifar10")
    image_size: ClassVar[int] = 32


@DATASETS.register("cifar_six")
@dataclass(frozen=True, kw_only=True)
class CifarSix(_CifarPart):
    """Extractors see these."""

    low: ClassVar[int] = 0
    high: ClassVar[int] = 6
    classes: ClassVar[int] = 6
    train_size: ClassVar[int] = 2400
    test_size: ClassVar[int] = 600


@DATASETS.register("cifar_four")
@dataclass(frozen=True, kw_only=True)
class CifarFour(_CifarPart):
    """Victims see these."""

    low: ClassVar[int] = 6
    high: ClassVar[int] = 10
    classes: ClassVar[int] = 4
    train_size: ClassVar[int] = 1600
    test_size: ClassVar[int] = 400
    pretraining: ClassVar[str] = "cifar_six"


@pytest.fixture
def pictures(shared: Path, tmp_path: Path) -> str:
    """A data set of real pictures, put where the catalog looks."""
    sizes = {"train": 400, "test": 100}
    with tarfile.open(shared / "data" / "cifar10-jpeg75.tar.gz") as tape:
        first = (
            m for m in tape if m.isfile() and int(Path(m.name).stem) < sizes[Path(m.name).parts[-3]]
        )
        tape.extractall(tmp_path / "data" / "cifar10", first, filter="data")
    return "cifar_four"


def shifts(
    catalog: Catalog, fetch: Fetch, part: str, dataset: str, setups: int
) -> tuple[list[float], list[float]]:
    """By set-up: how far the log-odds rise, and how far test accuracy falls."""
    given = Part.parse(part)
    attack = Part.of(given.name, **{**ATTACKS[given.name].quick, **dict(given.params)})
    rises, drops = [], []
    for number in range(setups):
        rows = []
        for each in ("clean", str(attack)):
            text = f"{dataset}/{each}/none/small_cnn/linear_probe/toxic_quick/{number}"
            result = run_trial(resolve(text, catalog), fetch, TrialContext())
            assert result.error is None
            rows.append(result.probes)
        rises.append(rows[1]["target"]["logodds"] - rows[0]["target"]["logodds"])
        drops.append(rows[0]["clean_test"]["acc"] - rows[1]["clean_test"]["acc"])
    return rises, drops


@pytest.mark.slow
def test_attacks_on_features_of_pictures_are_ordered_as_published(
    catalog: Catalog, fetch: Fetch, pictures: str
) -> None:
    found = {name: shifts(catalog, fetch, part, pictures, 10) for name, part in PARTS.items()}
    rise = {name: mean(rises) for name, (rises, _) in found.items()}
    assert abs(rise["noise"]) < 0.3
    assert rise["noise"] < rise["released"] < rise["hull"] < rise["collision"] < rise["bullseye"]
    assert rise["hull"] > 0.4
    assert rise["collision"] > 0.8
    assert rise["bullseye"] > 1.5
    assert min(found["bullseye"][0]) > 0.3
    assert max(drop for _, drops in found.values() for drop in drops) < 0.03


@pytest.mark.slow
def test_attacks_on_features_of_digits_bite(catalog: Catalog, fetch: Fetch) -> None:
    found = {
        name: shifts(catalog, fetch, part, "photo_digits_last", 6) for name, part in PARTS.items()
    }
    rise = {name: mean(rises) for name, (rises, _) in found.items()}
    assert abs(rise["noise"]) < 0.5
    assert rise["noise"] < rise["released"] < rise["collision"] < rise["bullseye"]
    assert rise["noise"] < rise["hull"] < rise["bullseye"]
    assert min(found["bullseye"][0]) > 0
    assert max(mean(drops) for _, drops in found.values()) < 0.05


@pytest.mark.slow
def test_a_plain_backdoor_works_and_a_clipped_one_does_not(catalog: Catalog, fetch: Fetch) -> None:
    """Whole networks from scratch; patched test images of other classes: 0.96 and 0.01."""
    parts = {
        "clean": "clean",
        "dirty": "patch_dirty",
        "clipped": "clbd(surrogate=small_cnn, surrogate_epochs=8)",
    }
    rates = {}
    for name, part in parts.items():
        text = f"photo_digits/{part}/none/small_cnn/supervised/toxic_quick(poisons=100)/0"
        result = run_trial(resolve(text, catalog), fetch, TrialContext())
        assert result.error is None
        rates[name] = result.probes.get("all_trigger", {}).get("acc")
    assert rates["clean"] is None
    assert rates["dirty"] > 0.6
    assert rates["clipped"] < 0.25
