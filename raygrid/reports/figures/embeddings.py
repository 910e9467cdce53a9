"""t-SNE of features and of perturbations, with the numbers that stand above each panel."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from matplotlib.figure import Figure

from raygrid.core.errors import DataError
from raygrid.core.labels import telling
from raygrid.core.lazy import np, torch
from raygrid.core.seeds import Stream
from raygrid.reports.analysis.records import Records
from raygrid.reports.figures.canvas import panels
from raygrid.trials.poisons import Poisoned

if TYPE_CHECKING:
    from numpy.typing import NDArray

PER_CLASS = 200  # points of a class in t-SNE
COMPONENTS = 50  # principal ones of perturbations, which t-SNE starts from
WIDE = 40  # letters of a name above a panel
Array: TypeAlias = "NDArray[np.float32]"


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
