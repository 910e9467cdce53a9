"""Each protocol of `experiments/benchmarks/fast_causes.py` differs from `fast` as it says."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from raygrid.core.plugins import load_plugins
from raygrid.protocols import PROTOCOLS
from raygrid.trials.resolve import resolve
from raygrid.trials.trial import Trial

FILE = Path(__file__).parents[2] / "experiments" / "benchmarks" / "fast_causes.py"
SPEC = "cifar10/ops/standard/{}/supervised/{}(rung=minutes)/0"
OPTIMIZER = {"groups", "lr", "momentum", "optimizer", "schedule", "weight_decay"}


@pytest.fixture
def causes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The protocols are there for one test, so that no list of all has them."""
    monkeypatch.setattr(PROTOCOLS, "_methods", dict(PROTOCOLS._methods))
    load_plugins((str(FILE),))
    yield
    del sys.modules[FILE.stem]


def changed(name: str, network: str = "small_airbench") -> tuple[set[str], Trial]:
    """The fields of the recipe in which a protocol differs from `fast`, and its trial."""
    usual, trial = (resolve(SPEC.format(network, each), None) for each in ("fast", name))
    assert trial.skip() is None
    assert trial.protocol.tier == usual.protocol.tier
    assert trial.key != usual.key
    fields = [field.name for field in dataclasses.fields(usual.recipe)]
    return {f for f in fields if getattr(usual.recipe, f) != getattr(trial.recipe, f)}, trial


@pytest.mark.usefixtures("causes")
def test_each_differs_in_what_it_is_about_and_in_nothing_else() -> None:
    fields, trial = changed("fast_unsmoothed")
    assert (fields, trial.recipe.smoothing, trial.augmentation) == (
        {"smoothing"},
        0.0,
        "shift_flip",
    )
    fields, trial = changed("fast_cropped")
    assert (fields, trial.augmentation) == (set(), "crop_flip")
    fields, trial = changed("fast_sgd")
    assert (fields, trial.augmentation) == (OPTIMIZER, "shift_flip")
    assert (trial.recipe.optimizer, trial.recipe.schedule) == ("sgd", "one_cycle")
    assert (trial.recipe.batch_size, trial.recipe.epochs) == (500, 6)
    fields, trial = changed("fast_plain")
    assert (fields, trial.augmentation) == ({*OPTIMIZER, "smoothing", "flips"}, "crop_flip")
    assert (trial.recipe.batch_size, trial.recipe.epochs) == (500, 6)


@pytest.mark.usefixtures("causes")
def test_other_networks_have_that_optimizer_anyway() -> None:
    assert changed("fast_sgd", "small_vgg")[0] == set()
    assert changed("fast_unsmoothed", "small_vgg")[0] == set()


def test_without_the_file_they_are_not_there() -> None:
    assert not {"fast_unsmoothed", "fast_cropped", "fast_sgd", "fast_plain"} & set(PROTOCOLS)
