"""Legends of figures: which lines they name, and that they lie on no panel."""

from __future__ import annotations

import pytest

from raygrid.reports.figures.curves import training_curves
from raygrid.reports.figures.partial import partial_under_defenses
from raygrid.reports.tables.frame import curves, frame
from tests.reports.test_figures import drawn, run


def test_a_legend_has_the_lines_of_all_panels() -> None:
    """A defense need not have been run against the first attack."""
    at = [("lsp", "standard"), ("regions", "standard"), ("regions", "grayscale")]
    rows = [run(f"{a}{r}", 0.5, defense=d) for a, d in at for r in ("@0.4", "")]
    figure = partial_under_defenses(frame(rows))
    assert "grayscale" not in drawn(figure, 0)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["standard", "grayscale"]


@pytest.mark.parametrize("count", [1, 12])
def test_legends_of_training_curves_end_above_the_next_panel(count: int) -> None:
    names = [f"regions(n={n})" for n in range(1, count + 1)] + ["ar", "em", "lsp", "ops", "tap"]
    figure = training_curves(curves([run(name, 0.3) for name in ("clean", *names)]))
    figure.canvas.draw()
    boxes = [axes.get_window_extent() for axes in figure.axes if axes.get_visible()]
    assert min(box.height for box in boxes) > 0.8 * figure.dpi
    legends = [legend for axes in figure.axes if (legend := axes.get_legend())]
    assert max(len(legend.get_texts()) for legend in legends) == 1 + count
    for legend in legends:
        own = legend.get_window_extent()
        assert not [box for box in boxes if box.y0 < own.y0 + 1 < box.y1 and box.x0 < own.x1]
