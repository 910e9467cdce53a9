"""What a trial gives its learner, and on what it makes its draws."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from raygrid.storage.store import Bundle
from raygrid.trials.artifacts import Artifact
from raygrid.trials.catalog import Catalog
from raygrid.trials.context import TrialContext
from raygrid.trials.resolve import resolve
from raygrid.trials.result import peak_of
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
