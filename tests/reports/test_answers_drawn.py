"""Figures of what trials left: answers against accuracy, t-SNE, perturbations, maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from raygrid.reports.analysis.explanation import grad_cam, shapley
from raygrid.reports.analysis.fidelity import change
from raygrid.reports.analysis.questions import (
    transferability,
)
from raygrid.reports.analysis.records import Records
from raygrid.reports.figures.changes import draw_changes
from raygrid.reports.figures.embeddings import apart, sample
from raygrid.reports.figures.scatters import ACCURACY_LABELS, POISON_LABELS
from raygrid.trials.examples import first_of_classes
from tests.conftest import toy
from tests.finished import LSP, SPECS, command, result_of


def test_examples_and_samples_are_fixed() -> None:
    assert first_of_classes(toy(12, 8, 3).labels, 2).tolist() == [0, 1]
    labels = np.repeat(np.arange(3), [500, 10, 300])
    rows = sample(labels)
    assert np.array_equal(rows, sample(labels))
    assert np.bincount(labels[rows]).tolist() == [200, 10, 200]


def test_numbers_beside_tsne_are_leave_one_out() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    points = rng.normal(size=(60, 4)).astype(np.float32) + 1.2 * labels[:, None]
    right = [
        KNeighborsClassifier(10)
        .fit(np.delete(points, i, 0), np.delete(labels, i))
        .predict(points[i : i + 1])[0]
        == labels[i]
        for i in range(60)
    ]
    assert apart(points, labels)[0] == pytest.approx(np.mean(right))


@pytest.mark.parametrize(
    ("name", "accuracy"),
    [("transfer-peak", "peak_acc"), ("transfer-final", "final_acc"), ("psnr-final", "final_acc")],
)
def test_trials_are_drawn_against_answers_about_their_poisons(
    name: str, accuracy: str, finished: Path, records: Records, tmp_path: Path, saved: list[Figure]
) -> None:
    victims = [SPECS[1]] if name.startswith("transfer") else []
    words = ["--victims", *victims] if victims else []
    path = tmp_path / "scatter.png"
    assert command(finished, "figure", name, *SPECS, *words, "--file", str(path)) == 0
    assert path.exists()
    rate = {"lsp": 0.0, "clean": 0.0}
    for attack, text in (("lsp", "dots/lsp(budget=l2:3)"), ("clean", "dots/clean")):
        poison = records.poisoned(text)
        if victims:
            row = transferability([poison], [records.victim(SPECS[1])])[-1]
            rate[attack] = 100 * row["rate"]
        elif attack == "lsp":
            rate[attack] = change(poison.clean, poison.images)["psnr"]
    accs = {"lsp": [LSP], "clean": SPECS[:2]}
    expected = {
        attack: (
            rate[attack],
            100 * np.mean([getattr(result_of(finished, s), accuracy) for s in own]),
        )
        for attack, own in accs.items()
        if victims or attack == "lsp"  # an unchanged image has no PSNR
    }
    (figure,) = saved
    answer = "transfer_rate" if victims else "psnr"
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        POISON_LABELS[answer],
        ACCURACY_LABELS[accuracy],
    )
    handles, labels = axes.get_legend_handles_labels()
    shown = {
        label.split("  ")[1]: tuple(float(v[0]) for v in handle.get_data())  # type: ignore[union-attr]
        for handle, label in zip(handles, labels, strict=True)
    }
    assert shown == {attack: pytest.approx(place) for attack, place in expected.items()}


def drawn(
    finished: Path, tmp_path: Path, saved: list[Figure], name: str, specs: list[str], *extra: str
) -> Figure:
    """The figure that a command wrote into a folder of its own."""
    path = tmp_path / "new" / f"{name}.png"
    assert command(finished, "figure", name, *specs, "--file", str(path), *extra) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    (figure,) = saved
    return figure


def test_t_sne_of_trials_has_their_test_images(
    finished: Path, records: Records, tmp_path: Path, saved: list[Figure]
) -> None:
    figure = drawn(finished, tmp_path, saved, "tsne", SPECS)
    assert len(figure.axes) == 3
    for axes, spec in zip(figure.axes, SPECS, strict=True):
        left = records.left(records.trial(spec), "features").tensors
        near, silhouette = apart(left["features"].float().numpy(), left["labels"].numpy())
        said = f"10-NN {100 * near:.1f} %, silhouette {silhouette:.2f}"
        assert axes.get_title().splitlines()[-1] == said
        (points,) = axes.collections
        assert points.get_offsets().shape == (64, 2)
        seen = {
            (int(y), tuple(c)) for y, c in zip(left["labels"], points.get_facecolors(), strict=True)
        }
        assert len(seen) == len(dict(seen)) == len({c for _, c in seen}) == 4, "a color a class"


def test_t_sne_of_poisons_has_what_they_changed(
    finished: Path, records: Records, tmp_path: Path, saved: list[Figure]
) -> None:
    poison = records.poisoned("dots/lsp", 1)
    figure = drawn(finished, tmp_path, saved, "tsne", ["dots/lsp", "dots/noise"], "--seed", "1")
    change = (poison.images.floats() - poison.clean.floats()).flatten(1).numpy()
    near, silhouette = apart(change, poison.clean.labels.numpy())
    title = figure.axes[0].get_title().splitlines()
    assert title == ["lsp", f"10-NN {100 * near:.1f} %, silhouette {silhouette:.2f}"]
    assert [len(axes.collections[0].get_offsets()) for axes in figure.axes] == [128, 128]


def test_perturbations_are_drawn_as_they_were_asked_for(
    finished: Path, records: Records, tmp_path: Path, saved: list[Figure]
) -> None:
    specs = ["dots/lsp@0.5", "dots/noise@0.5"]
    words = ["--normalize", "gain", "minmax", "--gain", "7"]
    figure = drawn(finished, tmp_path, saved, "perturbations", specs, *words)
    poisons = [records.poisoned(spec) for spec in specs]
    names = ["lsp@0.5", "noise@0.5"]
    sets = {name: (p.clean, p.images) for name, p in zip(names, poisons, strict=True)}
    expected = draw_changes(sets, ("gain", "minmax"), 7.0)
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["clean", *names]
    assert figure.axes[4].get_title(loc="left") == "changes, gain 7"
    for axes, same in zip(figure.axes, expected.axes, strict=True):
        assert len(axes.images) == len(same.images)
        for one, other in zip(axes.images, same.images, strict=True):
            assert np.array_equal(one.get_array(), other.get_array())


@pytest.mark.parametrize("name", ["grad-cam", "shapley"])
def test_maps_are_those_of_each_trial(
    name: str, finished: Path, records: Records, tmp_path: Path, saved: list[Figure]
) -> None:
    """An image a class; of Shapley values those of the label, here of the predicted class."""
    extra = ["--of", "predicted"] if name == "grad-cam" else ["--samples", "4"]
    figure = drawn(finished, tmp_path, saved, name, SPECS[1:], *extra)
    victims = [records.victim(spec) for spec in SPECS[1:]]
    test = victims[0].test
    images = test.rows(first_of_classes(test.labels, 10))
    grid = np.array(figure.axes).reshape(3, 4)
    assert images.labels.tolist() == [0, 1, 2, 3]
    for n, axes in enumerate(grid[0]):
        assert np.array_equal(axes.images[0].get_array(), images.pixels[n].permute(1, 2, 0))
    for line, victim in zip(grid[1:], victims, strict=True):
        x, y = images.floats(), images.labels
        if name == "grad-cam":
            maps = grad_cam(victim, x, victim(x).argmax(1))
        else:
            maps = shapley(victim, x, y, samples=4)
        shown = np.stack([axes.images[-1].get_array() for axes in line])
        assert np.allclose(shown, maps.numpy(), atol=1e-6)
        assert shown.any()
