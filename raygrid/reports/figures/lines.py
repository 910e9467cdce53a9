"""Lines over a setting, over what a purifier leaves of the images, and over epochs."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raygrid.core.errors import SpecError
from raygrid.core.labels import short
from raygrid.reports.drawing import CURVE_STYLES, blank, mark_chance
from raygrid.reports.figures.canvas import (
    band,
    finish,
    legend,
    panels,
    scale_of,
    seeds_in_bands,
)
from raygrid.reports.tables.layout import order

AXIS_LABELS = {"final_acc": "test accuracy (%)", "psnr": "PSNR to the given images (dB)"}


def over_setting(points: pd.DataFrame, measures: Sequence[str], xlabel: str) -> Figure:
    """Each measure (`final_acc`, `psnr`) over `setting`, a panel a measure, a line an attack.

    points: lines of `reports.tables.frame.frame` with the column `setting` (and `psnr`), of which
    the mean over seeds is drawn.
    """
    _some(points)
    figure = blank(2.6 + 2.6 * len(measures), 3.6)
    grid = list(figure.subplots(1, len(measures), squeeze=False).flat)
    attacks = sorted(set(points["attack"]), key=order)
    names = short(attacks)
    for axes, measure in zip(grid, measures, strict=True):
        for number, attack in enumerate(attacks):
            here = points[points["attack"] == attack]
            style = CURVE_STYLES[number % len(CURVE_STYLES)]
            _line(axes, here, ("setting", measure), style, names[attack])
        axes.set(xlabel=xlabel, ylabel=AXIS_LABELS[measure])
        if measure == "final_acc":
            mark_chance(axes, points["dataset"])
    legend(figure)
    caption = "Mean over seeds."
    return finish(figure, points, caption, right=1 - 2.2 / figure.get_figwidth())


def over_psnr(points: pd.DataFrame) -> Figure:
    """Test accuracy over PSNR, a panel an attack, a line a `family` of purifiers.

    points: as `over_setting`, with the columns `family` and `psnr`; each point is a setting.
    """
    _some(points)
    attacks = sorted(set(points["attack"]), key=order)
    names = short(attacks)
    figure, grid = panels(len(attacks))
    for axes, attack in zip(grid, attacks, strict=True):
        for number, family in enumerate(dict.fromkeys(points["family"])):
            here = points[(points["attack"] == attack) & (points["family"] == family)]
            _line(axes, here, ("psnr", "final_acc"), CURVE_STYLES[number], family)
        mark_chance(axes, points["dataset"])
        axes.set_title(names[attack], fontsize=9)
        axes.set_xlabel(AXIS_LABELS["psnr"])
    grid[0].set_ylabel(AXIS_LABELS["final_acc"])
    legend(figure)
    caption = "A point is a setting, mean over seeds. Further up: more of the poison is gone."
    return finish(figure, points, caption, right=1 - 1.4 / figure.get_figwidth())


def by_epoch(epochs: pd.DataFrame) -> Figure:
    """Test accuracy by epoch, a line an attack; `reports.tables.frame.curves` of one defense."""
    done = epochs[epochs["status"] == "done"]
    _some(done)
    figure = blank(7.2, 4.2)
    axes = figure.add_subplot()
    attacks = sorted(set(done["attack"]), key=order)
    names = short(attacks)
    for number, attack in enumerate(attacks):
        color = "black" if attack == "clean" else f"C{number % 10}"
        band(axes, done[done["attack"] == attack], "test_acc", names[attack], color)
    axes.set(xlabel="epoch", ylabel=AXIS_LABELS["final_acc"], ylim=(0, 103))
    mark_chance(axes, done["dataset"])
    legend(figure)
    caption = seeds_in_bands(done)
    return finish(figure, done, caption, right=1 - 2.2 / figure.get_figwidth())


def _line(axes: Axes, rows: pd.DataFrame, columns: tuple[str, str], style: str, label: str) -> None:
    """One column against another, a point a setting, in the order of the settings."""
    x, y = columns
    rows = rows.dropna(subset=[x, y])
    if rows.empty:
        return
    rows = rows.assign(across=rows[x], up=scale_of(y) * rows[y])
    means = rows.groupby("setting")[["across", "up"]].mean()
    axes.plot(means["across"], means["up"], style, ms=3.5, lw=1.1, label=label)


def _some(rows: pd.DataFrame) -> None:
    if rows.empty:
        raise SpecError("no trial of this figure is finished")
