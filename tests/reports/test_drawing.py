"""Every picture: 150 dpi, legible as wide as a page, nothing cut off, the level of chance."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from raygrid.core.images import Images
from raygrid.reports.drawing import DPI, GUESSING_COLOR, LEAST_FONT_POINTS, PAGE_INCHES
from raygrid.reports.figures.changes import draw_changes
from raygrid.reports.figures.curves import training_curves
from raygrid.reports.figures.lines import by_epoch
from raygrid.reports.figures.maps import draw_maps
from raygrid.reports.figures.partial import partial_poisoning, partial_under_defenses
from raygrid.reports.figures.scatters import peak_against_final, speed_against_peak
from raygrid.reports.tables.frame import curves, frame
from raygrid.reports.tables.kinds import table
from raygrid.reports.tables.plots import picture
from raygrid.reports.tables.trial_lines import trial_lines
from tests.conftest import toy
from tests.reports.rows import TOY, trial
from tests.reports.test_figures import run

ATTACKS = ("clean", "lsp", "em(budget=16/255)", "em", "tap", "hypo", "ar", "ops")
VIEWS = {name: (0.5, 1.0) for name in ("unlearnable", "original", "clean_train")}


@cache
def rows() -> list[dict[str, Any]]:
    """A large grid: eight attacks, 18 defenses, ratios, two seeds."""
    found = [
        run(attack, 0.2 + index / 20, seed, defense)
        for index, attack in enumerate(ATTACKS)
        for seed in (0, 1)
        for defense in ("standard", *(f"jpeg(quality={q})" for q in range(10, 95, 5)))
    ]
    for ratio in (0.2, 0.8):
        found += [run(f"{a}@{ratio}", 0.5, views=VIEWS) for a in ("lsp", "em")]
    return found


def learners() -> list[dict[str, Any]]:
    names = ("supervised", "supcl", "simclr", "byol", "moco", "simsiam")
    accs = ((0.5, 0.2), (0.2, 0.5))
    pairs = [(a, n, s) for a in ATTACKS[:3] for n in names for s in (0, 1)]
    return [trial(TOY.format(a, "standard", n, s), accs[s][n > "s"]) for a, n, s in pairs]


def changed() -> tuple[Images, Images]:
    clean = toy(40, 32, 10)
    return clean, clean.with_pixels((clean.pixels.short() + 3).clamp(0, 255).to(torch.uint8))


def panel(kind: str, made: list[dict[str, Any]]) -> Figure:
    panels = table(kind, trial_lines(made)).panels
    return picture(max(panels, key=lambda each: len(each.cells)))


PICTURES: dict[str, Callable[[], Figure]] = {
    **{kind: (lambda kind=kind: panel(kind, rows())) for kind in ("defense", "ratio", "peak")},
    "worst-learner": lambda: panel("worst-learner", learners()),
    "peak-final": lambda: peak_against_final(frame(rows())),
    "speed-peak": lambda: speed_against_peak(frame(rows())),
    "partial": lambda: partial_poisoning(frame(rows())),
    "partial-defenses": lambda: partial_under_defenses(frame(rows())),
    "curves": lambda: training_curves(curves(rows())),
    "by-epoch": lambda: by_epoch(curves([row for row in rows() if "/standard/" in row["spec"]])),
    "changes": lambda: draw_changes({"em 16/255": changed()}, ("minmax", "symmetric", "gain")),
    "maps": lambda: draw_maps(
        changed()[0].rows(torch.arange(10)), {TOY: torch.rand(10, 32, 32)}, True
    ),
}
QUICK = ("defense", "curves")
ALL = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PICTURES]


@cache
def drawn(name: str) -> Figure:
    return PICTURES[name]()


ACCURACIES = ALL[:-2]  # the others show images


@pytest.mark.parametrize("name", ALL)
def test_pictures_are_legible_on_a_page(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = drawn(name)
    assert figure.dpi == DPI == 150
    scale = min(1.0, PAGE_INCHES / figure.get_figwidth())
    for text in letters(figure, monkeypatch):
        assert scale * text.get_fontsize() > LEAST_FONT_POINTS - 0.15, text.get_text()
        box = text.get_window_extent()
        inside = box.x0 > -2 and box.x1 < figure.bbox.width + 2
        assert inside, f"{text.get_text()!r} is cut off"
        inside = box.y0 > -2 and box.y1 < figure.bbox.height + 2
        assert inside, f"{text.get_text()!r} is cut off"


def letters(figure: Figure, monkeypatch: pytest.MonkeyPatch) -> list[Text]:
    """The texts that are put on the paper; matplotlib keeps others, of ticks that went."""
    found: list[Text] = []
    draw = Text.draw

    def note(text: Text, *args: Any) -> None:
        found.append(text)
        draw(text, *args)

    monkeypatch.setattr(Text, "draw", note)
    figure.canvas.draw()
    return [text for text in found if text.get_text().strip() and text.get_visible()]


@pytest.mark.parametrize("name", ACCURACIES)
def test_the_level_of_chance_is_drawn(name: str) -> None:
    """One in ten, the classes of photo_digits; on a heatmap's scale of colors, else as a line."""
    figure = drawn(name)
    lines = [
        line for axes in figure.axes for line in axes.lines if line.get_color() == GUESSING_COLOR
    ]
    ends = {
        float(v) for line in lines for data in line.get_data() for v in data if len(set(data)) == 1
    }  # type: ignore[arg-type]
    assert {round(end, 6) for end in ends} == {10.0}
    said = " ".join(text.get_text() for text in figure.findobj(Text))
    assert "chance" in said
    if name in ("defense", "worst-learner"):
        assert "red on the scale: chance, 10 %" in said


def test_wide_heatmaps_stand_in_blocks() -> None:
    """18 columns on one line would be illegible on a page."""
    figure = drawn("defense")
    blocks = [axes for axes in figure.axes if axes.images and axes.get_yticklabels()]
    shown = [label.get_text() for axes in blocks for label in axes.get_xticklabels()]
    assert len(shown) == len(set(shown)) == 18
    assert len(blocks) > 1
    assert len({round(axes.get_position().x0, 6) for axes in blocks}) == 1, (
        "names stand below names"
    )


def test_one_seed_has_no_band() -> None:
    one = training_curves(curves([row for row in rows() if row["spec"].endswith("/0")]))
    assert str(one.get_label()).startswith("One seed.")
    assert str(drawn("curves").get_label()).startswith("Lines: mean over seeds; bands")
