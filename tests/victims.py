"""A small victim on real images: what a poison does to the accuracy on clean test images."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.datasets import DATASETS
from raygrid.datasets.base import Split
from raygrid.trials.evaluate import score
from raygrid.trials.resolve import resolve
from raygrid.trials.run import task_of


@cache
def photo_digits(count: int = 1500) -> Split:
    """The first `count` training images of photo_digits, and all its test images."""
    split = DATASETS.make("photo_digits").load(Path())
    return Split(split.train.rows(torch.arange(count)), split.test)


def poisoned(part: str, seed: int = 0, labels: torch.Tensor | None = None) -> Images:
    """The training images under an attack; `labels` are what the attack is told instead."""
    train = photo_digits().train
    told = train if labels is None else replace(train, labels=labels)
    attack = ATTACKS.make(part)
    stream = Stream("poison", ("photo_digits", attack.id, seed))
    return train.with_pixels(attack.poison(told, AttackContext(stream)).pixels)


def victim_accuracy(train: Images, defense: str = "none") -> float:
    """Final test accuracy of small_cnn after 15 epochs of protocol quick (3 s).

    defense: which hooks of training and test it learns with, by default none, no augmentation.
    """
    trial = resolve(f"photo_digits/clean/{defense}/small_cnn/supervised/quick(epochs=15)/0", None)
    session = trial.learner.start(task_of(trial, train, train, torch.device("cpu")))
    for epoch in range(trial.recipe.epochs):
        session.epoch(epoch)
    return score(session.finish(), photo_digits().test, trial.defense.view).acc


@cache
def reference_accuracy(part: str = "") -> float:
    """Of the clean images, or of a control such as `noise(budget=16/255)`."""
    return victim_accuracy(poisoned(part) if part else photo_digits().train)
