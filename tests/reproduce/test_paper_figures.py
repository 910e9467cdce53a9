"""The papers' figures: drawn from trials, with their numbers."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from raygrid.core.errors import SpecError
from raygrid.reports.analysis.explanation import grad_cam
from raygrid.reports.analysis.fidelity import fidelity_of_purified
from raygrid.reports.figures.changes import draw_changes
from raygrid.reproduce.figure_list import (
    UNMEASURED_TABLES,
    PaperFigure,
    drawn_figures_of,
)
from raygrid.reproduce.figures import DRAWINGS, FigureData, draw
from raygrid.reproduce.questions import FinishedTrials
from raygrid.trials.artifacts import purified_of
from raygrid.trials.examples import first_of_classes
from tests.reports.test_figures import drawn
from tests.reproduce.evidence import CLEAN, JPEG, LSP, VAE, WHERE


def shown(
    evidence: FinishedTrials, drawing: str, trials: list[str], **groups: tuple[str, ...]
) -> FigureData:
    return FigureData(
        PaperFigure("toy", drawing, tuple(trials), groups=groups), evidence, "paper", (0,)
    )


def test_purifiers_are_drawn_by_what_they_leave(
    evidence: FinishedTrials, tmp_path: Path, saved: list[Figure]
) -> None:
    files = draw(shown(evidence, "compression", [*JPEG, VAE]), tmp_path / "figure")
    assert [path.name for path in files] == [
        "figure-rate.png",
        "figure-psnr.png",
        "figure-psnr.csv",
    ]
    assert all(path.read_bytes()[1:4] == b"PNG" for path in files[:2])
    records, rows_of = evidence.records, evidence.rows

    def at(trial: str) -> tuple[float, float]:
        left = fidelity_of_purified(records, trial)[0]["psnr"]
        return left, 100 * rows_of[trial]["final_acc"]

    rate, psnr = saved
    assert drawn(rate, 0) == {"lsp": ([2.0], [pytest.approx(at(VAE)[0])])}
    assert drawn(rate, 1) == {"lsp": ([2.0], [pytest.approx(at(VAE)[1])])}
    families = {"JPEG": JPEG, "VAE": [VAE]}
    assert drawn(psnr) == {
        family: tuple(pytest.approx(values) for values in zip(*map(at, trials), strict=True))
        for family, trials in families.items()
    }
    rows = {
        (row["family"], float(row["setting"])): row
        for row in csv.DictReader(files[-1].read_text().splitlines())
    }
    assert set(rows) == {("JPEG", 20.0), ("JPEG", 50.0), ("VAE", 2.0)}
    left = fidelity_of_purified(evidence.records, JPEG[0])[0]["psnr"]
    row = rows["JPEG", 20.0]
    assert float(row["psnr"]) == pytest.approx(left)
    assert float(row["final_acc"]) == evidence.rows[JPEG[0]]["final_acc"]


@pytest.mark.parametrize(
    ("drawing", "trials", "numbers"),
    [
        ("by_epoch", JPEG[:1], "test_acc"),
        ("curves", [CLEAN[0], LSP], "train_loss"),
        ("tsne", [CLEAN[0], LSP], "silhouette"),
        ("residuals", [LSP, *JPEG], "psnr"),
        ("peak_final", [CLEAN[0], LSP], "peak_acc"),
    ],
)
def test_figures_come_with_their_numbers(
    drawing: str,
    trials: list[str],
    numbers: str,
    evidence: FinishedTrials,
    tmp_path: Path,
    saved: list[Figure],
) -> None:
    groups = {"synthetic": ("lsp(budget=l2:3.0)",)} if drawing == "curves" else {}
    picture, values = draw(shown(evidence, drawing, trials, **groups), tmp_path / "new" / "figure")
    assert picture.read_bytes()[1:4] == b"PNG"
    table = pd.read_csv(values)
    assert table[numbers].notna().all()
    (figure,) = saved
    rows = [evidence.rows[trial] for trial in trials]
    if drawing == "by_epoch":
        acc = [100 * epoch["test_acc"] for epoch in rows[0]["history"]]
        assert drawn(figure) == {"lsp": ([1, 2], pytest.approx(acc))}
    if drawing == "curves":
        losses = [[epoch["train_loss"] for epoch in row["history"]] for row in rows]
        names = ("clean", "lsp")
        found = dict(zip(names, losses, strict=True))
        assert drawn(figure, 0) == {n: ([1, 2], pytest.approx(one)) for n, one in found.items()}
        assert figure.axes[0].get_title() == "synthetic"
    if drawing == "tsne":
        for axes, (_, row) in zip(figure.axes, table.iterrows(), strict=True):
            said = f"10-NN {100 * row['neighbors_acc']:.1f} %, silhouette {row['silhouette']:.2f}"
            assert axes.get_title().splitlines()[-1] == said
            assert axes.collections[0].get_offsets().shape == (64, 2)
    if drawing == "peak_final":
        ends = [(100 * row["final_acc"], 100 * row["peak_acc"]) for row in rows]
        points = [(x[0], y[0]) for x, y in drawn(figure).values()]
        assert points == [pytest.approx(end) for end in ends]
    if drawing == "residuals":
        lsp = "lsp(budget=l2:3.0)"
        assert list(table["set"]) == [lsp, f"{lsp}, jpeg(quality=20)", f"{lsp}, jpeg(quality=50)"]


def test_maps_are_pictures_of_each_group(
    evidence: FinishedTrials, tmp_path: Path, saved: list[Figure]
) -> None:
    data = shown(evidence, "maps", [CLEAN[0], LSP], **{"grad-cam": ("lsp(budget=l2:3.0)",)})
    (picture,) = draw(data, tmp_path / "figure")
    assert picture.name == "figure-grad-cam.png"
    assert picture.read_bytes()[1:4] == b"PNG"
    (figure,) = saved
    grid = np.array(figure.axes).reshape(3, 4)
    victims = [evidence.records.victim(spec) for spec in (CLEAN[0], LSP)]
    images = victims[0].test.rows(first_of_classes(victims[0].test.labels, 10))
    for line, victim in zip(grid[1:], victims, strict=True):
        found = np.stack([axes.images[-1].get_array() for axes in line])
        assert np.allclose(found, grad_cam(victim, images.floats(), images.labels), atol=1e-6)


def test_a_picture_names_its_rows_shortly(evidence: FinishedTrials) -> None:
    """The full specs beside a picture would leave it no room."""
    for drawing, trials in (("tsne", [CLEAN[0], LSP]), ("residuals", [LSP, *JPEG])):
        data = shown(evidence, drawing, trials)
        ((_, figure, numbers),) = DRAWINGS[drawing](data)
        assert numbers is not None
        if drawing == "tsne":
            found = [axes.get_title().splitlines()[0] for axes in figure.axes]
            assert found == ["clean", "lsp"]
        else:
            found = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
            rows = ["lsp", "lsp, jpeg(quality=20)", "lsp, jpeg(quality=50)"]
            assert found == ["clean", *rows]


def test_a_gallery_is_drawn_in_the_normalizations_of_its_plate(evidence: FinishedTrials) -> None:
    """D-VAE's figure 4 has two of them; every gallery has an image of each class."""
    two = drawn_figures_of("dvae")["4"].normalizations
    assert two == ("minmax", "symmetric")
    listed_figures = {
        (p, n): each for p in UNMEASURED_TABLES for n, each in drawn_figures_of(p).items()
    }
    galleries = {at: each for at, each in listed_figures.items() if each.drawing == "residuals"}
    assert {at for at, each in galleries.items() if each.normalizations == ("symmetric",)} == (
        set(galleries) - {("dvae", "4")}
    )
    data = shown(evidence, "residuals", JPEG[:1])
    data = replace(data, figure=replace(data.figure, normalizations=two))
    ((_, figure, _),) = DRAWINGS["residuals"](data)
    grid = np.array(figure.axes).reshape(3, 3)
    assert [axes.get_title(loc="left") for axes in grid[1, 1:]] == [
        f"changes, {how}" for how in two
    ]
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["clean", "lsp", "lsp, jpeg"]
    records = evidence.records
    trial = records.trial(JPEG[0])
    clean, given = records.world(trial).train, records.training_set(trial)
    assert trial.purified is not None
    made = purified_of(records.worker.fetch(trial.purified))
    expected = draw_changes({"lsp": (clean, given), "lsp, jpeg": (clean, made)}, two)
    for axes, same in zip(figure.axes, expected.axes, strict=True):
        pictures = [one.get_array() for one in axes.images]
        assert all(p.shape == (20, 4 * 18 + 2, 3) for p in pictures), "four classes of 16 pixels"
        for one, other in zip(pictures, same.images, strict=True):
            assert np.array_equal(one, other.get_array())


def test_a_figure_without_trials_says_so(evidence: FinishedTrials, tmp_path: Path) -> None:
    gone = WHERE.format("clean", "jpeg(quality=2)", 0)
    with pytest.raises(SpecError, match="no trial of this figure is finished"):
        draw(shown(evidence, "compression", [gone]), tmp_path / "figure")
