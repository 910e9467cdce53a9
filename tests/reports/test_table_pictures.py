"""The pictures of tables: heatmaps, curves and dumbbells of the same values."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from matplotlib.text import Text

from raygrid.reports.page.write import shades
from raygrid.reports.tables.heatmaps import SCALE_LABELS
from raygrid.reports.tables.kinds import table
from raygrid.reports.tables.layout import Panel
from raygrid.reports.tables.plots import picture
from raygrid.reports.tables.trial_lines import trial_lines
from tests.reports.rows import TOY, VAL, Json, derived, grid, trial


def pixels(panel: Panel) -> tuple[int, int]:
    """Pixels of the picture that are not white, and all."""
    figure = picture(panel)
    figure.canvas.draw()
    values = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]
    return int((values < 250).any(-1).sum()), values.shape[0] * values.shape[1]


def pictured() -> list[Json]:
    rows = [*grid(), trial(TOY.format("lsp@0.4", "standard", "supervised", 0), 0.6)]
    rows.append(trial(TOY.format("lsp", "none", "supervised", 0), status="failed", error="x"))
    return rows


def test_pictures_show_something() -> None:
    for kind in ("defense", "ratio", "peak"):
        for panel in table(kind, trial_lines(pictured())).panels:
            inked, total = pixels(panel)
            assert inked > 0.02 * total


@pytest.mark.parametrize("kind", ["defense", "ratio", "peak"])
def test_titles_of_pictures_are_not_cut_off(kind: str) -> None:
    rows = derived("standard", VAL)[::3]
    rows += [{**row, "spec": row["spec"].replace("/lsp/", "/lsp@0.4/")} for row in rows]
    panel = table(kind, trial_lines(rows)).panels[-1]
    figure = picture(panel)
    figure.canvas.draw()
    (title,) = (
        text for text in figure.findobj(Text) if text.get_text().replace("\n", " ") == panel.title
    )
    box = title.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert box.y1 <= figure.bbox.height
    heads = [label.get_window_extent().y1 for label in figure.axes[0].get_xticklabels()]
    assert max(heads) <= box.y0, "the title lies on the names of the columns"


@pytest.mark.parametrize("metric", ["final_acc", "target_success", "detection_acc"])
def test_the_scale_of_a_single_row_is_named_in_full(metric: str) -> None:
    panel = table("defense", trial_lines(grid()[:2])).panels[0]
    figure = picture(dataclasses.replace(panel, metric=metric))
    figure.canvas.draw()
    label = figure.axes[1].yaxis.label
    box = label.get_window_extent()
    assert label.get_text().replace("\n", " ") == SCALE_LABELS.get(metric, "accuracy (%)")
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert 0 <= box.y0 < box.y1 <= figure.bbox.height


def test_a_heatmap_has_the_values_of_its_cells() -> None:
    panel = table("defense", trial_lines(grid())).panels[0]
    axes = picture(panel).axes[0]
    rows, columns = ["clean", "lsp", "lsp(patch=4)"], ["standard", "grayscale"]
    assert [label.get_text() for label in axes.get_yticklabels()] == rows
    assert [label.get_text() for label in axes.get_xticklabels()] == columns
    (image,) = axes.images
    means = [[90, 82], [13, 55], [30, 70]]
    assert np.allclose(np.asarray(image.get_array()), means)
    assert image.get_clim() == (0, 100)
    said = {text.get_position(): text.get_text() for text in axes.texts}
    assert said[1, 1] == "55.0 ±7.1"
    assert len(said) == 6


def test_curves_have_a_point_a_ratio_and_dumbbells_both_ends() -> None:
    panels = table("ratio", trial_lines(pictured())).panels
    panel = next(p for p in panels if p.where["defense"] == "standard")
    axes = picture(panel).axes[0]
    lines = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    x, y = lines["lsp"].lines[0].get_data()  # type: ignore[union-attr]
    shares = [float(share) for share in x]
    values = [float(value) for value in y]
    assert dict(zip(shares, values, strict=True)) == pytest.approx({0.0: 90, 0.4: 60, 1.0: 13})
    assert float(lines["clean"].get_ydata()[0]) == pytest.approx(90)  # type: ignore[union-attr]

    rows = [trial(TOY.format("lsp", "standard", "supervised", 0), 0.2)]
    rows[0]["peak_acc"] = 0.7
    (panel,) = table("peak", trial_lines(rows)).panels
    axes = picture(panel).axes[0]
    ends = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    for name, value in (("final", 20), ("peak", 70)):
        point = ends[name].lines[0]  # type: ignore[union-attr]
        assert (float(point.get_xdata()[0]), float(point.get_ydata()[0])) == (
            pytest.approx(value),
            0,
        )


def test_budgets_have_short_names_in_equal_steps_and_single_ones_no_line() -> None:
    attacks = ("clean", "lsp(budget=l2:1.3041323727577427, patch=4)", "lsp(budget=l2:2.0)")
    attacks += ("lsp(budget=l2:2.1)", "lsp(budget=l2:60.5)")
    rows = [trial(TOY.format(a, "standard", "supervised", 0), 0.5) for a in attacks]
    (panel,) = table("budget", trial_lines(rows)).panels
    axes = picture(panel).axes[0]
    names = ["0", "l2 1.30", "l2 2.0", "l2 2.1", "l2 60.5"]
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    assert axes.get_xticks().tolist() == [0, 1, 2, 3, 4]
    assert axes.get_xlabel() == "budget, not to scale"
    lines = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    several, single = (lines[name].lines[0] for name in ("lsp", "lsp(patch=4)"))  # type: ignore[union-attr]
    assert several.get_xdata().tolist() == [0, 2, 3, 4]
    assert several.get_linestyle() == "-"
    assert single.get_xdata().tolist() == [1], "it does not begin at the clean set"
    assert single.get_linestyle() == "None"


def test_numbers_of_a_heatmap_are_black_where_those_of_the_page_are() -> None:
    texts = {"#000": "black", "#fff": "white"}
    for step in (0, 8, 9, 10, 11, 12, 20):  # of 5 %
        acc = step / 20
        rows = [trial(TOY.format("lsp", "standard", "supervised", 0), acc)]
        (text,) = picture(table("defense", trial_lines(rows)).panels[0]).axes[0].texts
        assert text.get_text() == f"{100 * acc:.1f}"
        assert text.get_color() == texts[shades()[step][1]], acc
