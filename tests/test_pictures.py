"""What pictures show: the drawn points, colors and images, read back from matplotlib's objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.manifold import TSNE

from raygrid.analysis import draw_perturbations
from raygrid.analysis.pictures import apart
from raygrid.attacks import ATTACKS
from raygrid.data import Images
from raygrid.poisons import Poisoned
from raygrid.seeds import Stream
from tests.conftest import toy

# --- t-SNE ---------------------------------------------------------------------------------------


def noisy(n: int = 120, side: int = 12, share: float = 1.0) -> Poisoned:
    """Faint patterns of the classes under noise of its own for each image, some of them touched."""
    clean = toy(n, side)
    rng = Stream("noise").generator()
    noise = torch.randint(-9, 10, clean.pixels.shape, generator=rng)
    marks = torch.randint(-2, 3, (4, *clean.shape), generator=rng)
    mask = torch.arange(n) < share * n
    moved = (clean.pixels + noise + marks[clean.labels]).clamp(0, 255).to(torch.uint8)
    pixels = torch.where(mask.view(-1, 1, 1, 1), moved, clean.pixels)
    attack = ATTACKS.make("noise")
    return Poisoned(clean, clean.with_pixels(pixels), mask, attack, f"toy/noise/{n}", "abc")


def change(poisoned: Poisoned) -> np.ndarray[Any, Any]:
    def flat(images: Images) -> torch.Tensor:
        return images.floats().flatten(1)[poisoned.mask]

    return (flat(poisoned.images) - flat(poisoned.clean)).numpy()


def said(points: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> str:
    near, silhouette = apart(points, labels)
    return f"10-NN {100 * near:.1f} %, silhouette {silhouette:.2f}"


class Recorder(TSNE):  # type: ignore[misc]
    """t-SNE that notes its settings and what it was given, and places points at once."""

    calls: list[tuple[dict[str, Any], np.ndarray[Any, Any]]]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.settings = settings

    def fit_transform(self, points: np.ndarray[Any, Any], y: Any = None) -> np.ndarray[Any, Any]:
        self.calls.append((self.settings, points))
        return points[:, :2]


@pytest.fixture
def recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> list[tuple[dict[str, Any], np.ndarray[Any, Any]]]:
    Recorder.calls = []
    monkeypatch.setattr("sklearn.manifold.TSNE", Recorder)
    return Recorder.calls


def test_numbers_beside_perturbations_are_those_of_all_pixels(
    recorded: list[tuple[dict[str, Any], np.ndarray[Any, Any]]],
) -> None:
    from sklearn.decomposition import PCA

    poisoned = noisy(share=0.75)
    labels = poisoned.clean.labels[poisoned.mask].numpy()
    vectors = change(poisoned)
    few = PCA(50, random_state=0).fit_transform(vectors)
    assert said(vectors, labels) != said(few, labels), "else this test could not tell them apart"
    figure = draw_perturbations([poisoned])
    title = figure.axes[0].get_title()
    assert title.splitlines()[1] == said(vectors, labels)
    ((_, points),) = recorded
    assert points.shape == (90, 50)
    assert np.allclose(points, few, atol=1e-4)
    assert [text.get_text() for text in figure.texts] == [
        "t-SNE is no evidence; numbers: original space"
    ]


def test_settings_of_t_sne(
    recorded: list[tuple[dict[str, Any], np.ndarray[Any, Any]]],
) -> None:
    figure = draw_perturbations([noisy(120), noisy(60)])
    (many, points), (few, _) = recorded
    assert many == {
        "n_components": 2,
        "perplexity": 30.0,
        "init": "pca",
        "learning_rate": "auto",
        "max_iter": 1000,
        "random_state": 0,
    }
    assert few == {**many, "perplexity": 59 / 3}
    (drawn,) = figure.axes[0].collections
    assert np.allclose(drawn.get_offsets(), points[:, :2], atol=1e-6)
    assert np.array_equal(drawn.get_array(), noisy(120).clean.labels.numpy())
