"""How linear a poison is, and how linear a victim has become."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from raygrid.core.errors import DataError
from raygrid.core.images import Images, to_uint8
from raygrid.core.lazy import nn, torch
from raygrid.core.seeds import Stream
from raygrid.nn.context import FitContext
from raygrid.nn.linear import LinearFit
from raygrid.nn.pgd import input_gradient
from raygrid.reports.analysis.records import Victim
from raygrid.trials.poisons import Poisoned

if TYPE_CHECKING:
    from torch import Tensor

Row = dict[str, Any]
_CHUNK = 500
"""Images a pass."""
FIT = LinearFit(epochs=20, lr=0.1, batch_size=1024, falls=(0.5, 0.75), min_steps=900)
"""Softmax regression as orthogonal projection fits it (Sandoval-Segura et al. 2023)."""


def linearity_of_poisons(poisons: Iterable[Poisoned], device: torch.device) -> list[Row]:
    """Accuracy of softmax regression on a poison's noise, and on its images, fitted to four fifths.

    noise: poisoned less clean pixels, stretched to the range of pixels as a whole.
    acc on what it was fitted to, held_out_acc on the rest. A held-out accuracy on the images of 0.7
    and more is the bound from which Zhu et al. 2024 (UDP) call a set poisoned; clean_held_out_acc
    is that of the clean images. Raises DataError for an attack that takes images away.
    """
    return [_of_poison(poisoned, device) for poisoned in poisons]


def _of_poison(poisoned: Poisoned, device: torch.device) -> Row:
    clean, images = poisoned.clean, poisoned.images
    if not poisoned.replaced:
        raise DataError(f"{poisoned.spec} changes no image: it takes them away")
    row: Row = {"poison": poisoned.spec, "n": len(images)}
    sets = {"noise": images.with_pixels(as_pixels(clean.pixels, images.pixels)), "images": images}
    for name, some in {**sets, "clean": clean}.items():
        fitted, held = fit_and_hold(some, device)
        if name != "clean":
            row[f"{name}_acc"] = fitted
        row[f"{name}_held_out_acc"] = held
    return row


def as_pixels(clean: Tensor, poisoned: Tensor) -> Tensor:
    """The change of pixels uint8 (n, C, H, W), its smallest value at 0 and its largest at 255."""
    change = poisoned.short() - clean.short()
    low, high = change.min(), change.max()
    return to_uint8((change - low).float() / (high - low).clamp_min(1))


def fit_and_hold(images: Images, device: torch.device) -> tuple[float, float]:
    """Accuracy of the regression on the four fifths that it is fitted to, and on the rest."""
    stream = Stream("linearity", (len(images),))
    order = torch.randperm(len(images), generator=stream.generator("split"))
    cut = max(1, len(images) * 4 // 5)
    layer = FIT(images.rows(order[:cut]), FitContext(stream, device))
    return tuple(_accuracy(layer, images.rows(part)) for part in (order[:cut], order[cut:]))  # type: ignore[return-value]


def _accuracy(layer: nn.Linear, images: Images) -> float:
    hits = 0
    for rows in torch.arange(len(images)).split(_CHUNK):
        x = images.floats(rows).flatten(1).to(layer.weight.device)
        hits += int((layer(x).argmax(1).cpu() == images.labels[rows]).sum())
    return hits / max(1, len(images))


def linearity_of_victim(victim: Victim, radius: float, images: int | None = None) -> Row:
    """How often one step of the sign of the gradient changes what a victim has right (FGSM).

    fgsm_rate: of the test images that it has right, the share that it has wrong at x + radius *
    sign(gradient), clipped; the more linear a network, the larger (Liu et al. 2026, PIL).
    """
    test = victim.test.rows(torch.arange(min(images or len(victim.test), len(victim.test))))
    right = lost = 0
    for rows in torch.arange(len(test)).split(_CHUNK):
        x = test.floats(rows).to(victim.device)
        labels = test.labels[rows].to(victim.device)

        def losses(z: Tensor, step: int, wanted: Tensor = labels) -> Tensor:
            return nn.functional.cross_entropy(victim(z), wanted, reduction="none")

        _, gradient = input_gradient(losses, x)
        with torch.no_grad():
            before = victim(x).argmax(1) == labels
            after = victim((x + radius * gradient.sign()).clamp(0, 1)).argmax(1) == labels
        right += int(before.sum())
        lost += int((before & ~after).sum())
    rate = lost / right if right else None
    return {
        "victim": victim.name,
        "n": len(test),
        "clean_acc": right / len(test),
        "fgsm_rate": rate,
    }
