"""What attacks share that differentiate a network: its choice, and work in batches of rows.

Networks are frozen (`raygrid.nn.pgd`), so images are independent and any batch of them can be made
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks.base import Attack, AttackContext
from raygrid.attacks.common.surrogates import no_surrogate
from raygrid.core.budget import Budget
from raygrid.core.images import Images, to_uint8
from raygrid.core.lazy import torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Combination, require

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class GradientAttack(Attack):
    """Base of attacks that differentiate a network with respect to its input."""

    tiny: ClassVar[Mapping[str, Scalar]] = {"surrogate": "small_cnn", "batch_size": 16}
    effort: ClassVar[frozenset[str]] = frozenset({"batch_size", "surrogate"})

    budget: Budget = Budget("linf", 8 / 255)
    surrogate: str = "resnet18"  # architecture of the network that is differentiated
    batch_size: int = 512  # images of one gradient step

    def __post_init__(self) -> None:
        super().__post_init__()
        ARCHITECTURES.expect(self.surrogate)
        require(self.batch_size >= 2, f"batch_size is {self.batch_size}, allowed are 2 and more")

    @property
    def radius(self) -> float:
        """The largest change of a value, in units of the pixel range [0, 1]."""
        return self.budget.value

    @property
    def grain(self) -> int:  # type: ignore[override]  # a constant of other attacks
        """Whole batches: a last one that is not full costs what a full one costs."""
        return self.batch_size

    def skip(self, combination: Combination) -> str | None:
        return no_surrogate(self.id, (self.surrogate,), combination)


def next_class(labels: Tensor, classes: int) -> Tensor:
    """The class after the label, (label + 1) mod classes: where most targeted attacks push."""
    return (labels + 1) % classes


def in_batches(
    images: Images, context: AttackContext, size: int, make: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Poisoned pixels uint8 (n, C, H, W) for the rows of `context`, batch by batch.

    make: (x float32 (size, C, H, W) on the device, rows int64 (size,)) -> perturbation of that
    shape. Every batch has `size` rows (the last is filled up by repeating one), so that on a CPU
    the bytes do not depend on how the rows were split. Finished batches are kept in
    `context.progress`, about twenty times in all.
    """
    index = context.index(images)
    pixels = images.pixels[index].clone()
    done = 0
    saved = context.progress.load()
    if saved is not None:
        done = int(saved[1]["done"])
        pixels[:done] = saved[0]["pixels"]
    seldom = max(1, len(index) // size // 20)
    for start in range(done, len(index), size):
        rows = index[start : start + size]
        full = torch.cat([rows, rows[-1:].expand(size - len(rows))])
        x = images.floats(full).to(context.device)
        stop = start + len(rows)
        pixels[start:stop] = to_uint8(make(x, full).add_(x)[: len(rows)]).cpu()
        context.progress.report(stop, len(index))
        if start // size % seldom == 0:
            context.progress.save({"pixels": pixels[:stop]}, {"done": stop})
    return pixels
