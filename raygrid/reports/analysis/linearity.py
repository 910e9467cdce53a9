"""How linear a poison is, and how linear a victim has become."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from raygrid.architectures import ARCHITECTURES
from raygrid.core.errors import DataError
from raygrid.core.images import Images, to_uint8
from raygrid.core.lazy import nn, torch
from raygrid.core.seeds import Stream
from raygrid.defenses.op import OrthogonalProjection
from raygrid.nn import augment
from raygrid.nn.context import FitContext
from raygrid.nn.pgd import input_gradient
from raygrid.nn.two_layer import TwoLayerFit
from raygrid.reports.analysis.records import EvaluationRow, Victim
from raygrid.trials.poisons import Poisoned

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 500
"""Images a pass."""
PROJECTION_FIT = OrthogonalProjection().fit
"""Softmax regression as orthogonal projection fits it (Sandoval-Segura et al. 2023)."""
UDP_DETECTOR = TwoLayerFit(min_steps=1000)
"""UDP's (Zhu et al. 2024); CIFAR-10 has 31,300 steps."""
LEAST_IMAGES = 5
"""Images of which a fifth can be held out."""
Scores = Callable[["Tensor"], "Tensor"]
"""Images float32 (n, C, H, W) in [0, 1] on the device to scores (n, classes)."""
Fit = Callable[[Images, FitContext], Scores]


def linearity_of_poisons(
    poisons: Iterable[Poisoned],
    device: torch.device,
    images: int | None = None,
    two_layer: bool = False,
) -> list[EvaluationRow]:
    """Accuracy of softmax regression on a poison's noise, and on its images, fitted to four fifths.

    noise: poisoned less clean pixels of the poisoned images alone, stretched to the range of pixels
    as a whole; None below LEAST_IMAGES of them. images: all that a victim is given, untouched ones
    too. acc on what it was fitted to, held_out_acc on the rest; clean_held_out_acc is that of the
    clean images. two_layer: also the network and training by which Zhu et al. 2024 (UDP) look at a
    set; they call one poisoned whose held-out accuracy is 0.7 or more. images: so many drawn images
    of the set in place of all. Raises DataError for an attack that takes images away, fewer than
    LEAST_IMAGES images, or ones that a network is not made for.
    """
    return [_of_poison(poisoned, device, images, two_layer) for poisoned in poisons]


def _of_poison(
    poisoned: Poisoned, device: torch.device, count: int | None, two_layer: bool
) -> EvaluationRow:
    if not poisoned.replaced:
        raise DataError(f"{poisoned.spec} changes no image: it takes them away")
    total = len(poisoned.clean)
    _check_side(poisoned, ("linear", "two_layer")[: 1 + two_layer])
    rows = torch.randperm(total, generator=_stream(total).generator("images"))[:count].sort()[0]
    if len(rows) < LEAST_IMAGES:
        raise DataError(
            f"{len(rows)} images of {poisoned.spec}, allowed are {LEAST_IMAGES} and more"
        )
    clean, images, mask = poisoned.clean.rows(rows), poisoned.images.rows(rows), poisoned.mask[rows]
    row: EvaluationRow = {"poison": poisoned.spec, "n": len(images), "n_poisoned": int(mask.sum())}
    row["noise_acc"], row["noise_held_out_acc"] = _of_noise(clean, images, mask, device)
    row["images_acc"], row["images_held_out_acc"] = fit_and_hold(images, _regression, device)
    row["clean_held_out_acc"] = fit_and_hold(clean, _regression, device)[1]
    if two_layer:
        fit = _two_layer(poisoned.augmentation)
        row["two_layer_acc"], row["two_layer_held_out_acc"] = fit_and_hold(images, fit, device)
    return row


def _check_side(poisoned: Poisoned, networks: Sequence[str]) -> None:
    side = poisoned.clean.shape[-1]
    for name in networks:
        low, high = ARCHITECTURES[name].sizes
        if not low <= side <= high:
            raise DataError(f"{poisoned.spec}: {name} takes images of {low} to {high} pixels")


def _of_noise(
    clean: Images, images: Images, mask: Tensor, device: torch.device
) -> tuple[float | None, float | None]:
    """The regression on the noise of the poisoned images; None where they are too few."""
    before, after = clean.rows(mask), images.rows(mask)
    if len(after) < LEAST_IMAGES:
        return None, None
    noise = after.with_pixels(as_pixels(before.pixels, after.pixels))
    return fit_and_hold(noise, _regression, device)


def as_pixels(clean: Tensor, poisoned: Tensor) -> Tensor:
    """The change of pixels uint8 (n, C, H, W), its smallest value at 0 and its largest at 255."""
    change = poisoned.short() - clean.short()
    low, high = change.min(), change.max()
    return to_uint8((change - low).float() / (high - low).clamp_min(1))


def _stream(images: int) -> Stream:
    return Stream("linearity", (images,))


def fit_and_hold(images: Images, fit: Fit, device: torch.device) -> tuple[float, float]:
    """Accuracy of a classifier on the four fifths that it is fitted to, and on the rest."""
    stream = _stream(len(images))
    order = torch.randperm(len(images), generator=stream.generator("split"))
    cut = len(images) * 4 // 5
    scores = fit(images.rows(order[:cut]), FitContext(stream, device))
    fitted, held = (_accuracy(scores, images.rows(p), device) for p in (order[:cut], order[cut:]))
    return fitted, held


def _regression(images: Images, fit_context: FitContext) -> Scores:
    layer = PROJECTION_FIT(images, fit_context)
    return lambda x: layer(x.flatten(1))


def _two_layer(augmentation: str) -> Fit:
    """UDP's detector. It crops and mirrors the held-out images, too: both are of one data set."""

    def fit(images: Images, fit_context: FitContext) -> Scores:
        change = augment.standard(augmentation, images.shape[-1]) or (lambda x, rng: x)
        network = UDP_DETECTOR(images, fit_context, lambda _, batch: change(batch.x, batch.rng))
        rng = fit_context.stream.generator("shown")
        return lambda x: network(change(x, rng))

    return fit


def _accuracy(scores: Scores, images: Images, device: torch.device) -> float:
    hits = 0
    for rows in torch.arange(len(images)).split(_CHUNK):
        with torch.no_grad():
            found = scores(images.floats(rows).to(device)).argmax(1).cpu()
        hits += int((found == images.labels[rows]).sum())
    return hits / len(images)


def linearity_of_victim(victim: Victim, radius: float, images: int | None = None) -> EvaluationRow:
    """How often one step of the sign of the gradient changes what a victim has right (FGSM).

    fgsm_rate: of the test images that it has right, the share that it has wrong at x + radius *
    sign(gradient), clipped; the more linear a network, the larger (Liu et al. 2026, PIL).
    """
    test = victim.first(images)
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
