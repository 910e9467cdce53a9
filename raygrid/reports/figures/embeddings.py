"""t-SNE of features and of perturbations, with the numbers that stand above each panel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raygrid.core.errors import DataError
from raygrid.core.labels import telling
from raygrid.core.lazy import np, torch
from raygrid.core.seeds import Stream
from raygrid.core.spec import split_outside
from raygrid.core.text import clipped, percent
from raygrid.reports.analysis.records import Records
from raygrid.reports.drawing import blank, folded
from raygrid.reports.figures.gallery import names_of_classes
from raygrid.trials.poisons import Poisoned

if TYPE_CHECKING:
    from numpy.typing import NDArray

POINTS_PER_CLASS = 200  # points of a class in t-SNE
TSNE_COMPONENTS = 50  # principal ones of perturbations, which t-SNE starts from
ABOVE_LETTERS = 36  # letters of a name above a panel
EMBEDDING_INCHES = 2.3  # inches of a panel
LEGEND_INCHES = 1.2  # inches of the legend
MANY_POINTS = 1000  # points of a panel that have to be small to be told apart
FEW_CLASSES = 10  # classes that colors tell apart; more are a scale of numbers
FeatureArray: TypeAlias = "NDArray[np.float32]"


def draw_tsne_of_features(records: Records, specs: Sequence[str]) -> Figure:
    """Penultimate features of the test images of each trial, a panel a trial, the same images.

    A legend says which color is which class.
    """
    sets = {}
    for spec in specs:
        trial = records.trial(spec)
        left = records.left(trial, "features").tensors
        sets[str(trial.spec)] = left["features"].float().numpy(), left["labels"].numpy()
    return _scatter(sets, records.catalog.data_root)


def draw_tsne_of_changes(poisons: Sequence[Poisoned], data: Path | None = None) -> Figure:
    """What each attack added to its images, by t-SNE after 50 principal components.

    The numbers above a panel are those of all pixels. A legend says which color is which class.
    data: the data folder, which may know what the classes are called.
    """
    sets = {}
    for poisoned in poisons:
        if not poisoned.replaced or not bool(poisoned.mask.any()):
            raise DataError(f"{poisoned.spec} changed no image")
        touched = poisoned.mask.nonzero().squeeze(1)
        rows = touched[sample(poisoned.clean.labels[touched].numpy())]
        change = poisoned.images.floats(rows) - poisoned.clean.floats(rows)
        sets[poisoned.spec] = change.flatten(1).numpy(), poisoned.clean.labels[rows].numpy()
    return _scatter(sets, data, TSNE_COMPONENTS)


def sample(labels: NDArray[np.integer]) -> NDArray[np.intp]:
    """At most `POINTS_PER_CLASS` rows of each class, the same for the same labels; sorted."""
    order = torch.randperm(len(labels), generator=Stream("tsne").generator()).numpy()
    kinds = np.unique(labels)
    return np.sort(
        np.concatenate([order[labels[order] == kind][:POINTS_PER_CLASS] for kind in kinds])
    )


def _scatter(
    sets: Mapping[str, tuple[FeatureArray, NDArray[np.integer]]],
    data: Path | None,
    components: int | None = None,
) -> Figure:
    """A panel a set of vectors (n, d) with labels (n,); components: see `_placed`."""
    figure, grid = _panels(len(sets))
    names = telling(list(sets))
    every = sorted({int(kind) for _, labels in sets.values() for kind in np.unique(labels)})
    colors = _colors(every)
    for axes, (spec, (features, labels)) in zip(grid, sets.items(), strict=True):
        rows = sample(labels)
        points, kinds = features[rows], labels[rows]
        neighbors, silhouette = apart(points, kinds)
        at = _placed(points, components)
        size = 3 if len(at) > MANY_POINTS else 8
        axes.scatter(at[:, 0], at[:, 1], c=[colors[int(k)] for k in kinds], s=size, lw=0)
        name = folded(names[spec], ABOVE_LETTERS)
        axes.set_title(
            f"{name}\n10-NN {percent(neighbors)}, silhouette {silhouette:.2f}", fontsize=7
        )
        axes.set_xticks([])
        axes.set_yticks([])
    figure.text(0.01, 0.01, "t-SNE is no evidence; numbers: original space", fontsize=7)
    width, height = figure.get_size_inches()
    figure.tight_layout(rect=(0, 0.2 / height, 1 - LEGEND_INCHES / width, 1))
    _legend(figure, colors, _class_names(list(sets), every, data))
    return figure


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """Square panels, three in a row (of four two), with room for a legend on the right."""
    wide = 2 if count == 4 else min(3, count)
    tall = math.ceil(count / wide)
    figure = blank(EMBEDDING_INCHES * wide + LEGEND_INCHES, (EMBEDDING_INCHES + 0.4) * tall + 0.2)
    grid = list(figure.subplots(tall, wide, squeeze=False).flat)
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, grid[:count]


def _colors(kinds: Sequence[int]) -> dict[int, str]:
    """A color a class: of few those that people tell apart, of many a scale by their number."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    if len(kinds) <= FEW_CLASSES:
        return {kind: f"C{place}" for place, kind in enumerate(kinds)}
    scale = colormaps["turbo"](np.linspace(0.0, 1.0, len(kinds)))
    return {kind: to_hex(color) for kind, color in zip(kinds, scale, strict=True)}


def _class_names(specs: Sequence[str], kinds: Sequence[int], data: Path | None) -> list[str]:
    """What the classes are called; numbers where the specs are of several datasets."""
    datasets = {next(iter(split_outside(spec, "/"))) for spec in specs}
    return names_of_classes(datasets.pop() if len(datasets) == 1 else "", kinds, data)


def _legend(figure: Figure, colors: Mapping[int, str], names: Sequence[str]) -> None:
    """Which color is which class; of many classes some along the scale, which is said."""
    from matplotlib.lines import Line2D

    pairs = list(zip(colors.values(), names, strict=True))
    many = len(pairs) > FEW_CLASSES
    shown = pairs[:: math.ceil(len(pairs) / FEW_CLASSES)] if many else pairs
    handles = [
        Line2D([], [], ls="", marker="o", ms=4, color=color, label=_in_legend(name))
        for color, name in shown
    ]
    title = f"{len(shown)} of {len(pairs)} classes" if many else "classes"
    figure.legend(
        handles=handles,
        title=title,
        title_fontsize=7,
        fontsize=7,
        loc="center left",
        bbox_to_anchor=(1 - LEGEND_INCHES / figure.get_figwidth(), 0.5),
        frameon=False,
        handletextpad=0.2,
    )


def _in_legend(name: str) -> str:
    """A class's name in one short line; matplotlib leaves out what begins with an underscore."""
    line = clipped(" ".join(name.split()), 18)
    return f" {line}" if line.startswith("_") else line


def _placed(points: FeatureArray, components: int | None) -> FeatureArray:
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


def apart(features: FeatureArray, labels: NDArray[np.integer]) -> tuple[float, float]:
    """Leave-one-out accuracy of 10 nearest neighbors, and silhouette, in the original space."""
    from sklearn.metrics import silhouette_score
    from sklearn.neighbors import NearestNeighbors

    count = min(10, len(features) - 1)
    near = NearestNeighbors(n_neighbors=count).fit(features).kneighbors(return_distance=False)
    votes = np.stack([(labels[near] == kind).sum(1) for kind in np.unique(labels)], 1)
    right = np.unique(labels)[votes.argmax(1)] == labels
    return float(right.mean()), float(silhouette_score(features, labels))
