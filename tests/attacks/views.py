"""What the tests of contrastive attacks share: toy scenes and small settings."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from raygrid.attacks.common.noise import NoisyBatch
from raygrid.attacks.common.students import Student
from raygrid.attacks.tp import Tp
from raygrid.core.images import Images, to_uint8
from raygrid.core.seeds import Stream
from raygrid.nn.pgd import frozen

RADIUS = 8 / 255


def scenes(n: int, seed: int = 0) -> Images:
    """Smooth random color fields, each unlike the others, in four arbitrary classes."""
    generator = Stream("scenes").generator(n, seed)
    coarse = torch.rand(n, 3, 4, 4, generator=generator)
    pixels = to_uint8(functional.interpolate(coarse, 16, mode="bilinear"))
    return Images(pixels, torch.arange(n) % 4, 4)


def tiny_tp(**settings: object) -> Tp:
    return Tp(**{**Tp.tiny, **settings})  # type: ignore[arg-type]


def rng(*key: object) -> torch.Generator:
    return Stream("test").generator(*key)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {k: t.clone() for k, t in module.state_dict().items()}


def changed(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    """Names of weights and buffers that are not what they were."""
    now = module.state_dict()
    return {k for k, t in before.items() if not torch.equal(t, now[k])}


def loss_on(student: Student, images: Images, delta: Tensor) -> float:
    """The student's objective on the whole set, views replayed."""
    x = images.floats()
    with frozen(student.module), torch.no_grad():
        z = (x + delta).clamp(0, 1)
        return float(student.objective(NoisyBatch(z, x, images.labels, rng("views"))))
