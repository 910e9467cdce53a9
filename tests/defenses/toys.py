"""What the tests of defenses share: toy images and what a grid gives a defense."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.core.errors import SpecError
from raygrid.core.images import Images, to_uint8
from raygrid.core.seeds import Stream
from raygrid.datasets.base import Dataset, Split
from raygrid.defenses import DEFENSES
from raygrid.defenses.base import Defense, FitContext
from raygrid.defenses.chain import Chain
from raygrid.learners import LEARNERS
from raygrid.learners.base import Session, Task
from raygrid.nn import augment
from raygrid.nn.diffusion import BridgePlan, Prior, fitted, fitted_bridge
from raygrid.nn.recipes import Recipe
from raygrid.storage.checkpoints import NoProgress
from raygrid.trials.artifacts import DatasetArtifact
from raygrid.trials.trial import Trial
from tests.conftest import toy

CPU = torch.device("cpu")

# Purifiers that fit a network: at 224 pixels they take too long, and one epoch shows no picture.
FITTED = {name for name in DEFENSES if DEFENSES.tiny(name).purify_cost > 0}
# Settings with which other code acts than with the defaults.
VARIANTS = ("cutmix(box=batch)", "ueraser_lite(static=true)")
DRAWN = {"ueraser_lite(static=true)"}  # purifiers that change each image in a way of its own
HEAVY = {"avatar", "bridgepure", "eclipse"}  # imports diffusers, which takes seconds


def small(text: str) -> Defense:
    return DEFENSES.tiny(text)


def refused(text: str) -> str:
    """What is said of the bad parameters of a defense."""
    with pytest.raises(SpecError) as caught:
        DEFENSES.make(text)
    return str(caught.value)


def fit_context(seed: int = 0) -> FitContext:
    return FitContext(Stream("purify", ("toy", seed)), CPU)


def given(name: str, images: Images, seed: int = 0) -> FitContext:
    """What a grid gives a purifier: with a network that was fitted to a few images if it asks."""
    plan, few = small(name).prior, images.rows(torch.arange(min(4, len(images))))
    if isinstance(plan, Prior):
        weights = fitted(plan.plan, few, fit_context())
    elif isinstance(plan, BridgePlan):
        weights = fitted_bridge(plan, few, few, fit_context(), NoProgress())
        weights["rows"] = torch.arange(0)
    else:
        return fit_context(seed)
    return dataclasses.replace(fit_context(seed), prior=weights)


def rng(seed: int = 0) -> torch.Generator:
    return Stream("batch", (seed,)).generator()


def batch(n: int = 16, side: int = 32, classes: int = 10) -> tuple[Tensor, Tensor]:
    """Floats and class weights, as the learner hands them to `augment`."""
    images = toy(n, side, classes)
    return images.floats(), nn.functional.one_hot(images.labels, classes).float()


def smooth(n: int, side: int = 32) -> Images:
    """Images with structure at all scales, as photographs have."""
    noise = [torch.rand(n, 3, s, s, generator=rng(s)) for s in (2, 4, 8, 16, side)]
    sizes = (0.4, 0.3, 0.2, 0.1, 0.05)
    layers = [
        a * nn.functional.interpolate(x, size=side, mode="bilinear")
        for a, x in zip(sizes, noise, strict=True)
    ]
    return Images(to_uint8(torch.stack(layers).sum(0)), torch.arange(n) % 10, 10)


def acting(hook: str) -> list[str]:
    return [text for text in (*DEFENSES, *VARIANTS) if small(text).acts(hook)]


def levels(n: int, side: int = 16) -> tuple[Tensor, Tensor]:
    """Image i is constant i / n, its label class i: pixels and labels can be read off."""
    values = torch.arange(n) / n
    return values.view(-1, 1, 1, 1).expand(n, 3, side, side).clone(), torch.eye(n)


class ToySet(Dataset):
    """500 toy images."""

    id = "toy"
    classes, image_size, train_size, test_size = 4, 16, 500, 100
    augmentation = "none"

    def source(self, root: Path) -> str:
        return "toy"

    def load(self, root: Path) -> Split:
        return Split(toy(500, signal=12), toy(100, signal=12, seed=1))


def on_toys(trial: Trial) -> Trial:
    """The same trial on the toy set."""
    data = DatasetArtifact(ToySet(), "toy", trial.protocol.validation)
    return dataclasses.replace(trial, dataset=ToySet(), data=data)


def session(chain: Chain, images: Images, epochs: int = 3) -> Session:
    task = Task(
        train=images,
        labeled=images,
        architecture=ARCHITECTURES.make("small_cnn"),
        recipe=Recipe(epochs=epochs, batch_size=16, lr=0.05, schedule="constant"),
        defense=chain,
        streams={k: Stream(k) for k in ("init", "data")},
        augmentation=augment.standard("crop_flip", 16),
        normalization=None,
    )
    return LEARNERS.make("supervised").start(task)
