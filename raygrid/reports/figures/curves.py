"""Training curves: loss and test accuracy by epoch, a column a group of attacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from raygrid.core.errors import SpecError
from raygrid.core.labels import short
from raygrid.core.text import clipped
from raygrid.reports.drawing import blank, mark_chance
from raygrid.reports.figures.canvas import band, finish, plain, seeds_in_bands
from raygrid.reports.tables.layout import order

MOST_GROUPS = 5  # groups of training curves side by side
PANEL_INCHES = 0.9  # the height of a panel
PANEL_GAP_INCHES = 0.69  # between one panel and the next
LEGEND_LINE_INCHES = 0.125  # inches of a line of a legend
BELOW_LETTERS = 24  # letters of a name below a panel


def training_curves(
    epochs: pd.DataFrame, groups: Mapping[str, Sequence[str]] | None = None
) -> Figure:
    """Training loss and below it test accuracy by epoch, a column a group, five of them a row.

    epochs: `reports.tables.frame.curves`, of which sets that are clean or poisoned altogether are
    drawn. groups: attacks by the title of their column; without it the attacks of one name stand
    together. The clean control is in every column. Lines are means over
    seeds, bands reach from the smallest to the largest.
    """
    epochs = plain(epochs)
    epochs = epochs[(epochs["status"] == "done") & epochs["poison_ratio"].isin((0.0, 1.0))]
    groups = groups or _by_name(epochs["attack"].unique())
    if not groups or epochs.empty:
        raise SpecError("no finished trial of plain training has a history")
    wide = min(MOST_GROUPS, len(groups))
    heights = _heights([len({"clean", *attacks}) for attacks in groups.values()], wide)
    figure = blank(1.2 + 1.6 * wide, 1.5 + sum(heights))
    grid = figure.subplots(
        *(len(heights), wide), squeeze=False, sharex=True, sharey="row", height_ratios=heights
    )
    for axes in grid[1::2].flat:
        axes.remove()
    grid = grid[::2]
    names = short(["clean", *(attack for attacks in groups.values() for attack in attacks)])
    for axes in grid[-2:, 1 + (len(groups) - 1) % wide :].flat:
        axes.set_visible(False)
    for number, (title, attacks) in enumerate(groups.items()):
        row, column = divmod(number, wide)
        loss, acc = grid[2 * row : 2 * row + 2, column]
        for index, attack in enumerate(["clean", *(a for a in attacks if a != "clean")]):
            here = epochs[epochs["attack"] == attack]
            color = "black" if attack == "clean" else f"C{(index - 1) % 10}"
            name = clipped(names[attack], BELOW_LETTERS)
            band(loss, here, "train_loss", name, color)
            band(acc, here, "test_acc", name, color)
        loss.axhline(0.5, color="gray", lw=0.6, ls=":")
        loss.set_title(title, fontsize=9)
        acc.set(xlabel="epoch", ylim=(0, 103))
        mark_chance(acc, epochs["dataset"])
        acc.tick_params(labelbottom=True)
        if loss.get_legend_handles_labels()[0]:  # between the two panels, where nothing is drawn
            place = {"loc": "upper left", "bbox_to_anchor": (-0.1, 0.0)}
            named = loss.legend(
                fontsize=6, frameon=False, handlelength=1.2, labelspacing=0.2, **place
            )
            named.set_in_layout(False)  # panels keep their size whatever the names
        if column == 0:
            loss.set_ylabel("training loss")
            acc.set_ylabel("test accuracy (%)")
    finish(figure, epochs, f"{seeds_in_bands(epochs)} Dotted: loss 0.5.")
    figure.subplots_adjust(hspace=0.0)
    return figure


def _heights(lines: Sequence[int], wide: int) -> list[float]:
    """Inches of panels and the gaps between them, from above; lines: of each group's legend.

    Below a panel of losses stand its legend's lines, as many as the longest of the row needs.
    """
    rows = [max(lines[start : start + wide]) for start in range(0, len(lines), wide)]
    gaps = (
        max(PANEL_GAP_INCHES, PANEL_GAP_INCHES + LEGEND_LINE_INCHES * (longest - 5))
        for longest in rows
    )
    return [
        inches for gap in gaps for inches in (PANEL_INCHES, gap, PANEL_INCHES, PANEL_GAP_INCHES)
    ][:-1]


def _by_name(attacks: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for attack in sorted(attacks, key=order):
        if attack != "clean":
            groups.setdefault(attack.partition("(")[0], []).append(attack)
    return groups
