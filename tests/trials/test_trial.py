"""What a trial gives its learner, and on what it makes its draws."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from raygrid.learners.base import Session, Task
from raygrid.storage.store import Bundle
from raygrid.trials.artifacts import Artifact
from raygrid.trials.catalog import Catalog
from raygrid.trials.context import TrialContext
from raygrid.trials.resolve import resolve
from raygrid.trials.result import Result, peak_of
from raygrid.trials.run import run_trial, task_of
from raygrid.trials.trial import Trial
from tests import plugin
from tests.conftest import toy

assert plugin.CARD
CELL = "dots/{}/{}/small_cnn/{}/{}/{}"


def decided(
    attack: str = "clean",
    defense: str = "none",
    learner: str = "supervised",
    protocol: str = "brief",
    seed: int = 0,
) -> Trial:
    return resolve(CELL.format(attack, defense, learner, protocol, seed), None)


@pytest.mark.parametrize("data", ["clean", "poisoned"])
def test_a_probe_gets_the_images_that_the_protocol_names(data: str) -> None:
    trial = decided("lsp", learner="simclr", protocol=f"quick(probe_data={data})")
    poisoned, clean = toy(8, seed=1), toy(8, seed=2)
    task = task_of(trial, poisoned, clean, torch.device("cpu"))
    assert torch.equal(task.train.pixels, poisoned.pixels)
    assert torch.equal(task.labeled.pixels, (clean if data == "clean" else poisoned).pixels)


def test_a_control_and_every_defense_share_the_draws_of_a_victim() -> None:
    """What differs between their results is then no luck of the draw."""
    own = decided().streams()
    assert set(own) == {"init", "data", "views", "probe"}
    assert decided("lsp").streams() == own
    assert decided("lsp", "jpeg").streams() == own
    other = decided(seed=1).streams()
    assert not any(other[name] == stream for name, stream in own.items())


def test_the_peak_is_the_first_of_the_best_epochs() -> None:
    history = [{"lr": 0.1}, *({"test_acc": acc} for acc in (0.5, 0.75, 0.25, 0.75))]
    assert peak_of(history) == (0.75, 3)
    assert peak_of(history[:1]) is None


@pytest.mark.parametrize(
    ("protocol", "reason"),
    [
        ("quick(validation=0.999)", "validation 0.999 of 128 images leaves none to train on"),
        ("quick(validation=0.001)", "validation 0.001 of 128 images holds out none"),
        ("quick(holdout=0.999)", "holdout 0.999 of 128 images leaves none to train on"),
        ("quick(holdout=0.01, validation=0.7)", "holdout 0.01 of 38 images holds out none"),
        ("quick(validation=0.004, holdout=0.99)", None),
    ],
)
def test_a_share_that_holds_out_nothing_or_leaves_nothing_is_a_reason_to_skip(
    protocol: str, reason: str | None, catalog: Catalog
) -> None:
    spec = CELL.format("clean", "none", "supervised", protocol, 0)
    assert resolve(spec, None).skip() is None, "nobody looked at the data"
    said = resolve(spec, catalog).skip()
    assert said == (reason and f"{reason}; allowed are 0 and shares between")


def told(metrics: object, catalog: Catalog, fetch: Callable[[Artifact], Bundle]) -> Result:
    """The row of a trial whose learner says this of its epoch."""

    class Teller(plugin.Idle):
        def epoch(self, epoch: int) -> Any:
            return metrics

    class Telling(plugin.Sleeper):
        def start(self, task: Task) -> Session:
            return Teller(task, 0.0)

    trial = resolve(CELL.format("clean", "none", "sleeper", "brief", 0), catalog)
    telling = replace(trial, learner=Telling())
    return run_trial(telling, fetch, TrialContext(device=torch.device("cpu")))


def test_numbers_of_numpy_and_tensors_are_measured_as_plain_ones(
    catalog: Catalog, fetch: Callable[[Artifact], Bundle]
) -> None:
    given = {"train_loss": np.float32(0.25), "lr": torch.tensor(0.5), "steps": np.int64(3)}
    result = told(given, catalog, fetch)
    assert result.status == "done", result.error
    (epoch,) = result.history
    assert {name: epoch[name] for name in given} == {"train_loss": 0.25, "lr": 0.5, "steps": 3.0}
    assert json.loads(json.dumps(result.row()))["history"] == [epoch]


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        (
            {"train_loss": 1.0, "grad": torch.ones(2)},
            "grad of sleeper is 'tensor.*', allowed are num",
        ),
        ({"train_loss": "0.5"}, "train_loss of sleeper is '0.5', allowed are numbers"),
        ({"train_loss": None}, "train_loss of sleeper is 'None', allowed are numbers"),
        ({"loss": 1.0}, "an epoch of sleeper gives {'loss': 1.0}, allowed is .* train_loss"),
        (None, "an epoch of sleeper gives None, allowed is .* train_loss"),
    ],
)
def test_a_measure_that_is_no_number_fails_its_trial_alone(
    metrics: object, says: str, catalog: Catalog, fetch: Callable[[Artifact], Bundle]
) -> None:
    result = told(metrics, catalog, fetch)
    assert (result.status, result.history) == ("failed", [])
    assert re.search(says, str(result.error)), result.error


def test_a_row_says_that_its_poison_changed_nothing(
    catalog: Catalog, fetch: Callable[[Artifact], Bundle]
) -> None:
    """Noise below half a level everywhere is rounded away, though the budget pays for a level."""

    def marks(attack: str) -> list[str]:
        trial = resolve(CELL.format(attack, "none", "sleeper", "brief", 0), catalog)
        return run_trial(trial, fetch, TrialContext(device=torch.device("cpu"))).marks

    said = "its poison changed no image at all"
    assert said in marks("lsp(budget=l2:0.01)")
    assert said not in marks("lsp")
    assert said not in marks("clean")


def test_a_trial_on_a_cpu_computes_with_one_thread(
    catalog: Catalog, fetch: Callable[[Artifact], Bundle]
) -> None:
    trial = resolve(CELL.format("clean", "none", "sleeper", "brief", 0), catalog)
    torch.set_num_threads(2)
    try:
        result = run_trial(trial, fetch, TrialContext(device=torch.device("cpu")))
        assert (result.status, torch.get_num_threads()) == ("done", 1)
    finally:
        torch.set_num_threads(1)
