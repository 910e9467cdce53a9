"""Is AR's noise linearly separable, as APBench says? A linear classifier on noise alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean

import torch
from poisons_alone import heading, images_of, poisoned
from torch import Tensor
from verdict import APART

from raygrid.core.images import Images

SAYS = "APBench calls the noise of AR linearly separable"
SEPARATED = ("ar", "lsp")  # LSP is separable by its making


def accuracies(noise: Tensor, labels: Tensor, seed: int) -> tuple[float, float]:
    """Of logistic regression fitted on a random half: on that half, on the other; fractions.

    noise: float (n, values); labels: int64 (n,). With fewer rows in a half than values anything is
    fitted, so that the second number alone says something.
    """
    from sklearn.linear_model import LogisticRegression

    order = torch.randperm(len(noise), generator=torch.Generator().manual_seed(seed))
    scaled = (noise / noise.std().clamp_min(1e-12)).numpy()
    fitted, held = order[: len(order) // 2].numpy(), order[len(order) // 2 :].numpy()
    model = LogisticRegression(max_iter=200)
    model.fit(scaled[fitted], labels[fitted].numpy())
    one, other = (float(model.score(scaled[part], labels[part])) for part in (fitted, held))
    return one, other


def noise_of(name: str, images: Images, scale: str, seed: int) -> Tensor:
    """What an attack adds to images, float32 (n, values), of final pixels."""
    pixels = poisoned(name, images, scale, seed)
    return (pixels.float() - images.pixels.float()).flatten(1)


def table(scale: str, data: Path, seeds: Sequence[int]) -> Iterator[str]:
    """Both accuracies of each attack, and whether its noise is separable."""
    images = images_of(scale, data)
    half, values = len(images) // 2, images.pixels[0].numel()
    text = (
        "APBench calls AR linearly separable; upstream codes score such classifiers on the noises "
        f"they were fitted on. Logistic regression, {half} noises of {values} values; percent."
    )
    yield from heading("ar_separable", text, "attack", "fitted half", "other half", "")
    for name in SEPARATED:
        runs = [
            accuracies(noise_of(name, images, scale, seed), images.labels, seed) for seed in seeds
        ]
        fitted, held = (100 * mean(column) for column in zip(*runs, strict=True))
        said = "separable" if held >= 100 - APART else "not separable"
        yield f"| {name} | {fitted:.1f} | {held:.1f} | {said} |"
    yield ""
