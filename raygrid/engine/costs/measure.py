"""What a kind of trial takes of a device: a few seconds of its own training, on noise."""

from __future__ import annotations

import os
import time
from typing import Any

from raygrid.core.device import Meter, device_name, memory_limit, release
from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.learners.base import Session, Task
from raygrid.nn.recipes import precision_of
from raygrid.trials import evaluate
from raygrid.trials.run import HELD_SHARE, task_of
from raygrid.trials.trial import Trial

MEASURED_BATCHES = 12  # of a training epoch here


def can_measure(trial: Trial) -> bool:
    """Whether a trial can train without its artifacts: an extractor or a study are not noise."""
    return not trial.learner.pretrained and trial.study is None


class Rehearsal:
    """A trial that trains on noise, for as long as it is told.

    The images have the dataset's shape, since neither memory nor time depends on what they show;
    room for the rest of the dataset is held beside them. It has trained one epoch of `batches`
    batches and was tested once when it is ready, so that all of its memory is in use. Raises what
    the trial would raise, torch.OutOfMemoryError included.
    """

    def __init__(self, trial: Trial, device: torch.device, batches: int = MEASURED_BATCHES) -> None:
        release(device)
        self.trial = trial
        self.meter = Meter(device)
        unseen = unseen_bytes(trial, batches, device)
        self.held = torch.zeros(unseen, dtype=torch.uint8, device=device)
        self.images = _count(trial, batches)
        self.session = trial.learner.start(task_on_noise(trial, batches, device))
        self.train(0.0)
        try_out(trial, self.session, evaluate.IMAGES_AT_ONCE, device)

    def train(self, seconds: float) -> float:
        """Train whole epochs until `seconds` have passed, one at least; the images trained."""
        started, epoch = time.perf_counter(), 0
        while epoch == 0 or time.perf_counter() - started < seconds:
            self.session.epoch(epoch % self.trial.recipe.epochs)
            epoch += 1
        self.meter.sample()
        return float(epoch * self.images)

    def facts(self) -> dict[str, Any]:
        """What `Profiles.learn` takes, and the memory of the device in MB."""
        device = self.meter.device
        limit = memory_limit(device) or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        facts = {"status": "done", "device": device_name(device), **self.meter.facts()}
        return {**facts, "total_mb": limit / 2**20}


def try_out(trial: Trial, session: Session, count: int, device: torch.device) -> None:
    """Test what a session has learned, as after an epoch, on so many images."""
    tests = evaluate.Probed("noise", noise(trial, count).beside(device), trial.defense.view)
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


def unseen_bytes(trial: Trial, batches: int, device: torch.device) -> int:
    """The bytes of the images that are not shown: of the training set and its clean copy.

    Images that are only asked about come in batches, and so does a set that does not fit.
    """
    data = trial.dataset
    copies = 2 if trial.protocol.probe_data == "clean" else 1
    image, limit = 3 * data.image_size**2, memory_limit(device)
    if limit is not None and data.train_size * image > HELD_SHARE * limit:
        return 0
    return copies * (data.train_size - _count(trial, batches)) * image
