"""What pictures show: the drawn points, colors and images, read back from matplotlib's objects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from PIL import Image

from raygrid.attacks import ATTACKS
from raygrid.core.errors import DataError
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.datasets import DATASETS
from raygrid.reports.drawing import PAGE_INCHES
from raygrid.reports.figures.changes import draw_changes
from raygrid.reports.figures.embeddings import apart, draw_tsne_of_changes
from raygrid.reports.figures.gallery import (
    LEFT_PIXELS,
    TOP_PIXELS,
    draw_gallery,
    names_of_classes,
    stretch,
)
from raygrid.reports.figures.maps import draw_maps
from raygrid.trials.poisons import Poisoned
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


@pytest.fixture
def recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> list[tuple[dict[str, Any], np.ndarray[Any, Any]]]:
    """What t-SNE was asked: its settings and the points, which it places at once."""
    from sklearn.manifold import TSNE

    calls: list[tuple[dict[str, Any], np.ndarray[Any, Any]]] = []

    class Recorder(TSNE):  # type: ignore[misc]
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.settings = settings

        def fit_transform(
            self, points: np.ndarray[Any, Any], y: Any = None
        ) -> np.ndarray[Any, Any]:
            calls.append((self.settings, points))
            return points[:, :2]

    monkeypatch.setattr("sklearn.manifold.TSNE", Recorder)
    return calls


def test_numbers_beside_perturbations_are_those_of_all_pixels(
    recorded: list[tuple[dict[str, Any], np.ndarray[Any, Any]]],
) -> None:
    from sklearn.decomposition import PCA

    poisoned = noisy(share=0.75)
    labels = poisoned.clean.labels[poisoned.mask].numpy()
    vectors = change(poisoned)
    few = PCA(50, random_state=0).fit_transform(vectors)
    assert said(vectors, labels) != said(few, labels), "else this test could not tell them apart"
    figure = draw_tsne_of_changes([poisoned])
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
    figure = draw_tsne_of_changes([noisy(120), noisy(60)])
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
    colors = [to_hex(color) for color in drawn.get_facecolor()]
    labels = noisy(120).clean.labels.tolist()
    by_class = dict(zip(labels, colors, strict=True))
    assert colors == [by_class[label] for label in labels]
    assert len(set(by_class.values())) == 4
    (legend,) = figure.legends
    named = [text.get_text() for text in legend.get_texts()]
    assert named == [f"class {number}" for number in range(4)]
    shown = [to_hex(handle.get_color()) for handle in legend.legend_handles]  # type: ignore[union-attr]
    assert shown == [by_class[number] for number in range(4)], "the colors of the points"


def test_a_legend_of_many_classes_says_how_many_of_them_it_names(
    recorded: list[tuple[dict[str, Any], np.ndarray[Any, Any]]],
) -> None:
    poisoned = noisy(600)
    labels = torch.arange(600) % 100
    clean = replace(poisoned.clean, labels=labels, classes=100)
    images = replace(poisoned.images, labels=labels, classes=100)
    many = replace(poisoned, clean=clean, images=images, spec="cifar100/noise/0")
    figure = draw_tsne_of_changes([many])
    (legend,) = figure.legends
    assert legend.get_title().get_text() == "10 of 100 classes"
    named = [text.get_text() for text in legend.get_texts()]
    assert named == [
        "apple",
        "bowl",
        "chair",
        "dolphin",
        "lamp",
        "mouse",
        "plain",
        "rose",
        "squirrel",
        "train",
    ]


# --- galleries -----------------------------------------------------------------------------------


def tiles(axes: Axes, side: int) -> np.ndarray[Any, Any]:
    """The pictures (n, side, side, 3) that stand side by side in a row of a gallery."""
    (strip,) = axes.images
    array = np.asarray(strip.get_array())
    assert strip.get_interpolation() == "nearest"
    assert array.shape[0] == side + 4
    assert array.shape[1] % (side + 2) == 2
    starts = range(2, array.shape[1], side + 2)
    return np.stack([array[2:-2, start : start + side] for start in starts])


def hwc(pictures: torch.Tensor) -> np.ndarray[Any, Any]:
    return pictures.permute(0, 2, 3, 1).numpy()


def test_changes_become_pictures_in_three_ways() -> None:
    change = torch.tensor([[-0.1, 0.0, 0.3], [0.02, 0.0, -0.04], [0.0, 0.0, 0.0]])
    change = change.view(3, 3, 1, 1)
    expected = {
        "minmax": [[0, 0.25, 1], [1, 2 / 3, 0], [0.5] * 3],
        "symmetric": [[1 / 3, 0.5, 1], [0.75, 0.5, 0], [0.5] * 3],
        "gain": [[0, 0.5, 1], [0.7, 0.5, 0.1], [0.5] * 3],
    }
    for how, values in expected.items():
        found = stretch(change, how, 10.0).view(3, 3)  # type: ignore[arg-type]
        assert torch.allclose(found, torch.tensor(values), atol=1e-6), how
    assert torch.equal(stretch(change), stretch(change, "symmetric"))


def moved(clean: Images, rows: list[int], levels: int, seed: int = 0) -> Images:
    """These rows changed by up to so many levels."""
    rng = Stream("moved").generator(seed)
    noise = torch.randint(-levels, levels + 1, (len(rows), *clean.shape), generator=rng)
    noise[:, 0, 0, 0] = levels
    pixels = clean.pixels.short()
    pixels[rows] += noise.short()
    return clean.with_pixels(pixels.clamp(0, 255).to(torch.uint8))


def gray(n: int, classes: int, level: int = 128) -> Images:
    pixels = torch.full((n, 3, 8, 8), level, dtype=torch.uint8)
    return Images(pixels, torch.arange(n) % classes, classes)


def test_a_gallery_has_an_image_of_each_class_and_what_was_changed() -> None:
    """In every row the same images: of each class the first that all sets change, else any."""
    clean = gray(12, 3)
    sets = {
        "one": (clean, moved(clean, [3, 4, 6, 7, 5], 16)),
        "two": (clean, moved(clean, [0, 6, 9, 4, 10], 5, seed=1)),
    }
    shown = torch.tensor([6, 4, 5])  # 0 and 3 are changed by one of them alone; 5 is the only one
    figure = draw_changes(sets, ("minmax", "symmetric", "gain"))
    grid = np.array(figure.axes).reshape(3, 4)
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["clean", "one", "two"]
    factor = 0.5 / (16 / 255)
    assert [axes.get_title(loc="left") for axes in grid[1, 1:]] == [
        "changes, minmax",
        "changes, symmetric",
        f"changes, gain {factor:.3g}",
    ]
    assert not any(axes.axison or axes.images for axes in grid[0, 1:])
    assert np.allclose(tiles(grid[0, 0], 8), hwc(clean.floats(shown)))
    for line, (_, made) in zip(grid[1:], sets.values(), strict=True):
        assert np.allclose(tiles(line[0], 8), hwc(made.floats(shown)))
        change = made.floats(shown) - clean.floats(shown)
        for axes, how in zip(line[1:], ("minmax", "symmetric", "gain"), strict=True):
            wanted = hwc(stretch(change, how, factor))  # type: ignore[arg-type]
            assert np.allclose(tiles(axes, 8), wanted, atol=1e-6), how
    assert tiles(grid[1, 3], 8).max() == pytest.approx(1.0)  # the largest change of all is not cut
    assert tiles(grid[2, 3], 8).max() == pytest.approx(0.5 + factor * 5 / 255)


def test_a_gallery_shows_ten_classes_symmetrically_by_default() -> None:
    clean = gray(36, 12, level=250)  # whose changes are cut at 5 levels above and at 8 below
    made = moved(clean, list(range(36)), 8)
    figure = draw_changes({"all": (clean, made)})
    grid = np.array(figure.axes).reshape(2, 2)
    assert np.allclose(tiles(grid[1, 0], 8), hwc(made.floats(torch.arange(10))))
    change = made.floats(torch.arange(10)) - clean.floats(torch.arange(10))
    assert np.allclose(tiles(grid[1, 1], 8), hwc(stretch(change, "symmetric")), atol=1e-6)
    given = draw_changes({"all": (clean, made)}, ("gain",), gain=4.0)
    assert given.axes[3].get_title(loc="left") == "changes, gain 4"
    assert np.allclose(tiles(given.axes[3], 8), hwc(0.5 + 4 * change), atol=1e-6)


def above(axes: Axes) -> list[tuple[float, str]]:
    """The names above images, with where they stand in pixels of the picture."""
    labels = [label.get_text() for label in axes.get_xticklabels()]
    return list(zip(axes.get_xticks(), labels, strict=True))


def test_images_stand_below_the_names_of_their_classes() -> None:
    """Of those that are drawn: the first class here is changed by nobody."""
    clean = gray(12, 4)
    names = ["cat", "dog", "a name that would not fit beside others", "ant"]
    sets = {"one": (clean, moved(clean, [1, 2, 3], 16))}
    figure = draw_changes(sets, called=lambda labels: [names[n] for n in labels])
    shown = [(5.5, "dog"), (15.5, "a name that…eside others"), (25.5, "ant")]
    assert above(figure.axes[0]) == shown, "2 pixels between images of 8"
    assert not any(above(axes) for axes in figure.axes[1:] if axes.images)
    images = toy(3, 10, 3)
    figure = draw_maps(images, {"lsp": torch.rand(3, 10, 10)}, False, ["cat", "dog", "ant"])
    named = [above(axes) for axes in figure.axes]
    assert named == [[(4.5, "cat")], [(4.5, "dog")], [(4.5, "ant")], [], [], []]
    assert str(figure.get_label()).startswith("Red: what the score of the class rests on most")


def test_images_stay_large_enough_for_a_page_however_often_they_are_drawn() -> None:
    clean = gray(20, 20)
    sets = {"all": (clean, moved(clean, list(range(20)), 9))}
    for ways, classes in ((("gain",), 10), (("gain", "minmax"), 6), (("gain",) * 3, 5)):
        figure = draw_changes(sets, ways)  # type: ignore[arg-type]
        grid = np.array(figure.axes).reshape(2, 1 + len(ways))
        assert {len(tiles(axes, 8)) for axes in grid[1]} == {classes}
        inches = figure.get_figwidth() / grid.shape[1] / classes
        assert min(1.0, PAGE_INCHES / figure.get_figwidth()) * inches > 0.3


def test_galleries_of_different_images_or_of_no_change_are_refused() -> None:
    clean, other = gray(6, 3), toy(6, 8, 3)
    with pytest.raises(DataError, match="of different images"):
        draw_changes({"a": (clean, moved(clean, [0], 5)), "b": (other, moved(other, [0], 5))})
    with pytest.raises(DataError, match="nothing was changed"):
        draw_changes({"a": (clean, clean)})


# --- maps ----------------------------------------------------------------------------------------


def test_signed_maps_are_colored_to_their_99th_percentile() -> None:
    images = toy(3, 10, 3)
    rng = Stream("maps").generator()
    maps = torch.randn(3, 10, 10, generator=rng) * torch.tensor([1.0, 5.0, 0.0]).view(3, 1, 1)
    figure = draw_maps(images, {"values": maps}, signed=True)
    grid = np.array(figure.axes).reshape(2, 3)
    for n, axes in enumerate(grid[0]):
        assert np.array_equal(axes.images[0].get_array(), images.pixels[n].permute(1, 2, 0))
    for n, axes in enumerate(grid[1]):
        (picture,) = axes.images
        bound = np.sort(np.abs(maps[n].numpy()).ravel())
        edge = bound[98] + 0.01 * (bound[99] - bound[98])  # 0.99 * 99 = 98.01
        assert picture.get_clim() == pytest.approx((-edge, edge) if n < 2 else (-1, 1))
        assert picture.get_cmap().name == "seismic"  # blue below, red above
        assert np.array_equal(picture.get_array(), maps[n].numpy())


def test_unsigned_maps_lie_over_their_images() -> None:
    images = toy(2, 10, 2)
    maps = torch.rand(2, 10, 10, generator=Stream("maps").generator())
    figure = draw_maps(images, {"values": maps}, signed=False)
    for n, axes in enumerate(figure.axes[2:]):
        below, above = axes.images
        assert np.array_equal(below.get_array(), images.pixels[n].permute(1, 2, 0))
        assert np.array_equal(above.get_array(), maps[n].numpy())
        assert above.get_clim() == (0, 1)
        assert 0 < above.get_alpha() < 1


def test_a_gallery_says_its_scale_and_what_classes_are_called(tmp_path: Path) -> None:
    before = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)
    after = before.clone()
    after[0, 0, :4] += 10
    after[1, 1, 4:] -= 5
    file = draw_gallery(before, after, ["cat", "a name that is too long"], "x", tmp_path / "g.png")
    with Image.open(file) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    clean, change, poisoned = (
        pixels[TOP_PIXELS + row * 100 : TOP_PIXELS + row * 100 + 96] for row in range(3)
    )
    left, right = (slice(LEFT_PIXELS + 100 * n, LEFT_PIXELS + 100 * n + 96) for n in (0, 1))
    assert (clean[:, left] == 100).all()
    assert (poisoned[0, left][0] == [110, 100, 100]).all()
    assert change[0, left][0].tolist() == [255, 128, 128]  # the largest change fills the range
    assert change[-1, right][0].tolist() == [128, 64, 128]  # all by the same factor
    assert change[0, right][0].tolist() == [128, 128, 128]  # none is gray
    beside = pixels[TOP_PIXELS + 100 : TOP_PIXELS + 200, :LEFT_PIXELS]
    assert (beside < 128).any()  # the factor and the range are written there


def test_classes_are_called_what_people_call_them() -> None:
    labels = torch.tensor([0, 9])
    assert names_of_classes("cifar10/em/0", labels) == ["airplane", "truck"]
    assert names_of_classes("cifar100/em/0", labels) == ["apple", "bottle"]
    assert names_of_classes("svhn/em/0", labels) == ["0", "9"]
    assert names_of_classes("photo_digits_last/em/0", torch.tensor([0, 4]), Path()) == ["5", "9"]
    assert names_of_classes("not_installed/em/0", labels) == ["class 0", "class 9"]
    for name in DATASETS:
        made = DATASETS.make(name)
        assert len(made.class_names) in (0, made.classes)
        assert len(set(made.class_names)) == len(made.class_names)


def test_classes_of_folders_are_called_what_their_folders_are_or_what_wordnet_says(
    tmp_path: Path,
) -> None:
    """Nothing is decoded for it: the files here are no pictures."""
    wnids = [f"n{number:08}" for number in range(100)]
    for folder, classes in (("shapes", ["square", "round"]), ("imagenet100", wnids)):
        for part in ("train", "test"):
            for name in classes:
                file = tmp_path / folder / part / name / "1.png"
                file.parent.mkdir(parents=True)
                Image.new("RGB", (8, 8)).save(file)
    labels = torch.tensor([0, 1])
    shapes = "folder(name=shapes)/em/0"
    assert names_of_classes(shapes, labels, tmp_path) == ["round", "square"]
    assert names_of_classes(shapes, labels) == ["class 0", "class 1"], "nobody said where"
    assert names_of_classes(shapes, labels, tmp_path / "absent") == ["class 0", "class 1"]
    assert names_of_classes("imagenet100/em/0", labels, tmp_path) == wnids[:2]
    words = "n00000000 tench, Tinca tinca\nn00000001 goldfish, Carassius auratus\n"
    (tmp_path / "imagenet100" / "LOC_synset_mapping.txt").write_text(words)
    assert names_of_classes("imagenet100/em/0", labels, tmp_path) == ["tench", "goldfish"]
    assert names_of_classes("imagenet100/em/0", [2], tmp_path) == wnids[2:3]
