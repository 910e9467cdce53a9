"""What the tests of learners share: small learners, toy scenes, tasks and states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from raygrid.architectures import ARCHITECTURES
from raygrid.core.images import Images, to_uint8
from raygrid.core.literals import Scalar
from raygrid.core.seeds import Stream, forked
from raygrid.core.spec import Part
from raygrid.defenses.chain import Chain
from raygrid.learners import LEARNERS
from raygrid.learners.base import Learner, Session, Task
from raygrid.learners.common.two_views import TwoViewSession
from raygrid.nn.augment import CropFlip
from raygrid.nn.contrastive.base import Branch
from raygrid.nn.networks import freeze
from raygrid.nn.recipes import Probing, Recipe

VIEWS = [name for name in LEARNERS if LEARNERS[name].views]
FRESH = [name for name in LEARNERS if not LEARNERS[name].pretrained]
RECIPE = Recipe(
    epochs=3, batch_size=16, lr=0.05, weight_decay=1e-4, schedule="constant", precision="fp32"
)
PROBE = Probing(Recipe(epochs=20, batch_size=32, lr=0.05, weight_decay=0.0, precision="fp32"))


def small(name: str, **more: Scalar) -> Learner:
    return LEARNERS.tiny(Part.of(name, **more))


def scenes(n: int, seed: int = 0) -> Images:
    """Smooth random color fields, each unlike the others; the color of the center is the class."""
    generator = Stream("scenes").generator(n, seed)
    coarse = torch.rand(n, 3, 3, 3, generator=generator)
    labels = torch.arange(n) % 4
    centers = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    coarse[:, :, 1, 1] = centers[labels]
    return Images(to_uint8(functional.interpolate(coarse, 16, mode="bilinear")), labels, 4)


def task_of(images: Images, recipe: Recipe = RECIPE, **changes: Any) -> Task:
    task = Task(
        train=images,
        labeled=images,
        architecture=ARCHITECTURES.make("small_cnn(width=8)"),
        recipe=recipe,
        defense=Chain.make((Part("standard"),)),
        streams={a: Stream(a, ("toy", 0)) for a in ("init", "data", "views", "probe")},
        augmentation=CropFlip(2),
        normalization=((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        probing=PROBE,
        extractor=freeze(ARCHITECTURES.make("small_cnn(width=8)").build(7, images.shape[-1], 1)),
    )
    return replace(task, **changes)


def two_views(name: str, images: Images, **more: object) -> TwoViewSession:
    session = small(name, **more).start(task_of(images))
    assert isinstance(session, TwoViewSession)
    return session


def tensors_of(state: object, where: str = "") -> dict[str, Tensor]:
    """All tensors in nested state."""
    if isinstance(state, Tensor):
        return {where: state}
    if isinstance(state, Mapping):
        pairs = list(state.items())
    elif isinstance(state, list | tuple):
        pairs = list(enumerate(state))
    else:
        return {}
    return {k: t for key, value in pairs for k, t in tensors_of(value, f"{where}/{key}").items()}


def same(one: object, other: object) -> bool:
    left, right = tensors_of(one), tensors_of(other)
    return left.keys() == right.keys() and all(torch.equal(t, right[k]) for k, t in left.items())


def encoder(session: Session) -> dict[str, Tensor]:
    """Weights and buffers of the encoder that a session trains."""
    network = session.network  # type: ignore[attr-defined]
    return {k: t.clone() for k, t in network.state_dict().items() if not k.startswith("head")}


def unit(n: int, dim: int = 8, *key: object) -> Tensor:
    draws = torch.randn(n, dim, generator=Stream("losses").generator(n, dim, *key))
    return functional.normalize(draws, dim=1)


def branch(seed: int = 0, width: int = 8) -> Branch:
    network = ARCHITECTURES.make(f"small_cnn(width={width})").build(4, 16, seed)
    with forked(seed):
        return Branch(network, nn.Linear(4 * width, 8), "fp32")
