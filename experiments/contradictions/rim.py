"""Does COIN's detector know CUDA by its filters, or by the dark rim that its border leaves?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from poisons_alone import heading, images_of, poisoned
from settings import Setting
from torch import Tensor
from verdict import APART, summed

SAYS = "COIN's detector of convolved images is fed the sums of their four edges"
BORDERS = ("black", "reflect")
OTHERS = ("lsp", "regions", "ops")  # that it tells CUDA from: not clean images


def edges(pixels: Tensor) -> Tensor:
    """The sums of the four edges of each channel, float64 (n, 12), of uint8 (n, 3, H, W)."""
    x = pixels.double()
    sides = (x[:, :, 0], x[:, :, -1], x[:, :, :, 0], x[:, :, :, -1])
    return torch.cat([side.sum(dim=-1) for side in sides], dim=1)


def told_apart(one: Tensor, other: Tensor, seed: int) -> float:
    """Of a support vector machine of as many rows of both, fitted to half of them: its accuracy
    on the other half, a fraction.

    one, other: float (n, values) and (m, values).
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    generator = torch.Generator().manual_seed(seed)
    count = min(len(one), len(other))
    drawn = [rows[torch.randperm(len(rows), generator=generator)[:count]] for rows in (one, other)]
    order = torch.randperm(2 * count, generator=generator)
    values = torch.cat(drawn)[order].numpy()
    labels = (order < count).numpy()
    model = make_pipeline(StandardScaler(), SVC()).fit(values[:count], labels[:count])
    return float(model.score(values[count:], labels[count:]))


def table(scale: str, data: Path, seeds: Sequence[int]) -> Iterator[str]:
    """How well the detector tells CUDA with each border from poisons that convolve nothing."""
    images = images_of(scale, data)
    text = (
        "COIN's detector is a support vector machine of twelve values, the sums of the four edges "
        f"of an image. How well it tells CUDA from {', '.join(OTHERS)}, on images that it was not "
        "fitted to; percent, 50 is guessing."
    )
    yield from heading("coin_detector", text, "border of CUDA", "held-out accuracy")
    scores: dict[str, list[float]] = {border: [] for border in BORDERS}
    for seed in seeds:
        others = torch.cat([edges(poisoned(name, images, scale, seed)) for name in OTHERS])
        for border in BORDERS:
            setting = Setting("", {"attack": {"border": border}}, {})
            cuda = edges(poisoned("cuda", images, scale, seed, setting))
            scores[border].append(100 * told_apart(cuda, others, seed))
    yield from (f"| {border} | {summed(each)} |" for border, each in scores.items())
    black, mirrored = (sum(scores[border]) / len(seeds) for border in BORDERS)
    yield ""
    if black - 50 < APART:
        said = "it knows CUDA by nothing here"
    elif mirrored - 50 < APART:
        said = "it knows CUDA by its rim alone"
    elif black - mirrored > APART:
        said = "it knows CUDA by its rim, and less so without it"
    else:
        said = "it knows CUDA without its rim, too"
    yield f"- {said}."
    yield ""
