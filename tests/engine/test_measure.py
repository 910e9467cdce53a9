"""What trials take of a device, by a few steps of their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from raygrid.engine.costs.measure import Rehearsal, can_measure, noise
from raygrid.engine.costs.profiles import Profiles
from tests import plugin
from tests.engine.toys import trials_of

assert plugin.CARD


@pytest.mark.parametrize("learner", ["supervised", "simclr"])
def test_a_measurement_trains_and_tests_as_the_trial_would(learner: str) -> None:
    (trial,) = trials_of(f"dots/clean/standard/small_cnn/{learner}/quick/0")
    row = Rehearsal(trial, torch.device("cpu"), batches=2).facts()
    assert row["status"] == "done"
    assert row["device"].startswith("cpu")
    assert row["memory_mb"] > 10
    assert row["utilization"] is None  # nobody counts on a CPU
    profiles = Profiles()
    profiles.learn(trial, row)
    assert profiles.known == {}  # and a CPU says nothing about GPUs


def test_a_measurement_repeats_epochs_for_its_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    (trial,) = trials_of("dots/clean/standard/small_cnn/supervised/quick(epochs=2)/0")
    clock = iter(range(100))
    monkeypatch.setattr(
        "raygrid.engine.costs.measure.time.perf_counter", lambda: float(next(clock))
    )
    seen: list[int] = []
    start = type(trial.learner).start

    def watched(self: Any, task: Any) -> Any:
        session = start(self, task)
        epoch = session.epoch
        session.epoch = lambda n: (seen.append(n), epoch(n))[1]
        return session

    monkeypatch.setattr(type(trial.learner), "start", watched)
    rehearsal = Rehearsal(trial, torch.device("cpu"), batches=2)
    assert seen == [0]
    assert rehearsal.train(3.5) == 4 * len(rehearsal.session.task.train)  # type: ignore[attr-defined]
    assert seen == [0, 0, 1, 0, 1]  # of two epochs, as the schedule of the rates knows no third


def test_noise_has_the_shape_of_the_data() -> None:
    (trial,) = trials_of("tinyimagenet/clean/standard/resnet18/supervised/tp/0")
    images = noise(trial, 8)
    assert tuple(images.pixels.shape) == (8, 3, 64, 64)
    assert images.classes == 200
    assert images.pixels.float().std() > 50


@pytest.mark.parametrize(
    "spec",
    [
        "photo_digits_last/clean/standard/small_cnn/linear_probe/toxic_quick/0",
        "cifar10/clean/advcl(ce_weight=0.2)/resnet18/simclr/tp/0",
    ],
)
def test_who_starts_from_what_was_learned_is_not_measured(spec: str) -> None:
    (trial,) = trials_of(spec)
    assert not can_measure(trial)
