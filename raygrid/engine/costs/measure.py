"""What a kind of trial takes of a device: a few seconds of its own training, on noise."""

from __future__ import annotations

import time
from typing import Any

from raygrid.core.device import Meter, device_name, release
from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.learners.base import Session, Task
from raygrid.nn.recipes import precision_of
from raygrid.trials import evaluate
from raygrid.trials.run import task_of
from raygrid.trials.trial import Trial

BATCHES = 12  # of a training epoch here


def can_measure(trial: Trial) -> bool:
    """Whether a trial can train without its artifacts: an extractor or a study are not noise."""
    return not trial.learner.pretrained and trial.study is None


def measure_footprint(
    trial: Trial, device: torch.device, seconds: float = 3.0, batches: int = BATCHES
) -> dict[str, Any]:
    """Train as the trial would, alone on the device; the facts that `Profiles.learn` takes.

    The images are noise of the dataset's shape, since neither memory nor time depends on what they
    show; room for the rest of the dataset is held beside them. Epochs of `batches` batches repeat
    until `seconds` have passed, then a test follows. Raises what the trial would raise,
    torch.OutOfMemoryError included.
    """
    release(device)
    meter = Meter(device)
    try:
        held = torch.zeros(unseen_bytes(trial, batches), dtype=torch.uint8, device=device)
        session = trial.learner.start(task_on_noise(trial, batches, device))
        started, epoch = time.perf_counter(), 0
        while epoch == 0 or time.perf_counter() - started < seconds:
            session.epoch(epoch % trial.recipe.epochs)
            meter.sample()
            epoch += 1
        try_out(trial, session, evaluate.AT_ONCE, device)
        del held, session
        return {"status": "done", "device": device_name(device), **meter.facts()}
    finally:
        release(device)


def try_out(trial: Trial, session: Session, count: int, device: torch.device) -> None:
    """Test what a session has learned, as after an epoch, on so many images."""
    tests = evaluate.Probed("noise", noise(trial, count).to(device), trial.defense.view)
    precision = precision_of(trial.recipe, trial.architecture.convolutional)
    evaluate.ask(session.classifier(), [tests], precision)


def noise(trial: Trial, count: int) -> Images:
    """Images uint8 (count, 3, side, side) of a trial's size and number of classes."""
    side, classes = trial.dataset.image_size, trial.dataset.classes
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 3, side, side), generator=rng, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % classes, classes)


def _count(trial: Trial, batches: int) -> int:
    """How many images an epoch of so many batches has."""
    return min(max(batches * trial.recipe.batch_size, 2), trial.dataset.train_size)


def task_on_noise(trial: Trial, batches: int, device: torch.device) -> Task:
    """What the trial's learner is given, with epochs of so many batches of noise."""
    images = noise(trial, _count(trial, batches))
    return task_of(trial, images, images, device)


def unseen_bytes(trial: Trial, batches: int) -> int:
    """What the images take that are not shown: of the training set, its clean copy, the tests."""
    data = trial.dataset
    copies = 2 if trial.protocol.probe_data == "clean" else 1
    rest = copies * (data.train_size - _count(trial, batches)) + data.test_size
    return rest * 3 * data.image_size**2
