"""Figures of networks and perturbations: explanations of images, and t-SNE with its numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from raygrid.core.errors import DataError
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.reports.analysis.records import Records
from raygrid.reports.figures.canvas import blank, name_row, panels
from raygrid.reports.tables.labels import telling
from raygrid.trials.poisons import Poisoned

PER_CLASS = 200  # points of a class in t-SNE
COMPONENTS = 50  # principal ones of perturbations, which t-SNE starts from
WIDE = 40  # letters of a name above a panel
Array = NDArray[np.float32]


def examples(images: Images, count: int = 10) -> Tensor:
    """The first image of each of the first `count` classes, int64 rows."""
    present = images.labels.unique()[:count]
    return torch.stack([(images.labels == label).nonzero()[0, 0] for label in present])


def draw_maps(images: Images, maps: Mapping[str, Tensor], signed: bool) -> Figure:
    """Images (one a column) above the maps (n, H, W) of each spec (one a row).

    Unsigned maps lie in [0, 1] and are laid over the image; signed ones are red where positive and
    blue where negative, each scaled by its own 99th percentile.
    """
    pictures = images.pixels.permute(0, 2, 3, 1).cpu().numpy()
    figure = blank(0.9 * len(pictures) + 1.6, 0.95 * (len(maps) + 1) + 0.3)
    grid = figure.subplots(len(maps) + 1, len(pictures), squeeze=False)
    for axes, picture in zip(grid[0], pictures, strict=True):
        axes.imshow(picture, interpolation="nearest")
    names = telling(list(maps))
    for line, (spec, drawn) in zip(grid[1:], maps.items(), strict=True):
        name_row(line[0], names[spec])
        for axes, picture, values in zip(line, pictures, drawn.numpy(), strict=True):
            if signed:
                bound = float(np.percentile(np.abs(values), 99)) or 1.0
                axes.imshow(values, cmap="seismic", vmin=-bound, vmax=bound)
            else:
                axes.imshow(picture, interpolation="nearest")
                axes.imshow(values, cmap="jet", vmin=0, vmax=1, alpha=0.5)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
    figure.tight_layout()
    return figure


def draw_tsne_of_features(records: Records, specs: Sequence[str]) -> Figure:
    """Penultimate features of the test images of each trial, a panel a trial, the same images."""
    sets = {}
    for spec in specs:
        trial = records.trial(spec)
        left = records.left(trial, "features").tensors
        sets[str(trial.spec)] = left["features"].float().numpy(), left["labels"].numpy()
    return _scatter(sets)


def draw_tsne_of_changes(poisons: Sequence[Poisoned]) -> Figure:
    """What each attack added to its images, by t-SNE after 50 principal components.

    The numbers above a panel are those of all pixels.
    """
    sets = {}
    for poisoned in poisons:
        if not poisoned.replaced or not bool(poisoned.mask.any()):
            raise DataError(f"{poisoned.spec} changed no image")
        touched = poisoned.mask.nonzero().squeeze(1)
        rows = touched[sample(poisoned.clean.labels[touched].numpy())]
        change = poisoned.images.floats(rows) - poisoned.clean.floats(rows)
        sets[poisoned.spec] = change.flatten(1).numpy(), poisoned.clean.labels[rows].numpy()
    return _scatter(sets, COMPONENTS)


def sample(labels: NDArray[np.integer]) -> NDArray[np.intp]:
    """At most `PER_CLASS` rows of each class, always the same for the same labels; sorted."""
    order = torch.randperm(len(labels), generator=Stream("tsne").generator()).numpy()
    kinds = np.unique(labels)
    return np.sort(np.concatenate([order[labels[order] == kind][:PER_CLASS] for kind in kinds]))


def _scatter(
    sets: Mapping[str, tuple[Array, NDArray[np.integer]]], components: int | None = None
) -> Figure:
    """A panel a set of vectors (n, d) with labels (n,); components: see `_placed`."""
    figure, grid = panels(len(sets))
    names = telling(list(sets))
    for axes, (spec, (features, labels)) in zip(grid, sets.items(), strict=True):
        rows = sample(labels)
        points, kinds = features[rows], labels[rows]
        neighbors, silhouette = apart(points, kinds)
        at = _placed(points, components)
        axes.scatter(at[:, 0], at[:, 1], c=kinds, cmap="tab10", s=2)
        name = textwrap.fill(names[spec], WIDE, break_long_words=False)
        axes.set_title(
            f"{name}\n10-NN {100 * neighbors:.1f} %, silhouette {silhouette:.2f}", fontsize=6
        )
        axes.set_xticks([])
        axes.set_yticks([])
    figure.text(0.01, 0.01, "t-SNE is no evidence; numbers: original space", fontsize=6)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    return figure


def _placed(points: Array, components: int | None) -> Array:
    """Places (n, 2) by t-SNE, of as many principal components if a number is given.

    Its perplexity is 30, for fewer than 91 points what sklearn still allows.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if components is not None:
        points = PCA(min(components, *points.shape), random_state=0).fit_transform(points)
    tsne = TSNE(
        n_components=2,
        perplexity=min(30.0, (len(points) - 1) / 3),
        init="pca",
        learning_rate="auto",
        max_iter=1000,
        random_state=0,
    )
    return np.asarray(tsne.fit_transform(points), np.float32)


def apart(features: Array, labels: NDArray[np.integer]) -> tuple[float, float]:
    """Leave-one-out accuracy of 10 nearest neighbors, and silhouette, in the original space."""
    from sklearn.metrics import silhouette_score
    from sklearn.neighbors import NearestNeighbors

    count = min(10, len(features) - 1)
    near = NearestNeighbors(n_neighbors=count).fit(features).kneighbors(return_distance=False)
    votes = np.stack([(labels[near] == kind).sum(1) for kind in np.unique(labels)], 1)
    right = np.unique(labels)[votes.argmax(1)] == labels
    return float(right.mean()), float(silhouette_score(features, labels))
