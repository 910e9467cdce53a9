"""Measured against printed accuracy, one point a cell."""

from __future__ import annotations

from collections import Counter

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raygrid.core.labels import short
from raygrid.core.text import decimal
from raygrid.reports.analysis.agreement import FAR_DIFFERENCE, Agreeing, Agreement
from raygrid.reports.analysis.counterparts import CONTROL_GROUP, group_order
from raygrid.reports.drawing import CURVE_STYLES, blank, mark_chance
from raygrid.reports.figures.canvas import legend, title, victim_text
from raygrid.reports.tables.trial_lines import VICTIM_AXES
from raygrid.trials.contest import CONTROLS

CONTROL_MARKERS = dict(zip(CONTROLS, "*x", strict=True))
"""Controls are all black; no attack has these markers."""


def draw_agreement(found: Agreement) -> Figure:
    """Scatter of measured over printed accuracy with the diagonal and the band of 15 points.

    An attack is a color and a marker; each group of cells (poisons made with another network than
    the paper's, say) has a panel of its own, with the controls in each. Of several settings the one
    with most cells is drawn and the caption says what is not.
    """
    setting, *others = _settings(found)
    pairs = [pair for pair in found.pairs if pair.setting == setting]
    groups = sorted({pair.group for pair in pairs} - {CONTROL_GROUP}, key=group_order) or [
        CONTROL_GROUP
    ]
    columns = 2 if len(groups) == 4 else min(len(groups), 3)
    rows = -(-len(groups) // columns)
    figure = blank(4.2 + 2.2 * columns, 1.0 + 3.6 * rows)
    panels = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    attacks = list(dict.fromkeys(pair.attack for pair in pairs))
    for axes, group in zip(panels, groups, strict=False):
        members = [p for p in pairs if p.group in (group, CONTROL_GROUP)]
        _panel(axes, members, attacks)
        axes.set_title(group, fontsize=9)
    for axes in panels[len(groups) :]:
        axes.remove()
    for axes in panels[::columns]:
        axes.set_ylabel("measured test accuracy (%)", fontsize=8)
    caption = "\n".join([*_caption(found, setting), *others])
    cells = [pair.cell for pair in pairs]
    victim = (str(cells[0].axes[name]) for name in VICTIM_AXES)
    other_data = [str(cell.facts.get("other_data") or "") for cell in cells]
    title(figure, victim_text(victim, other_data, "cells"))
    figure.text(0.01, 0.02, caption, fontsize=7, color="#444444", va="bottom")
    figure.set_label(caption)
    room = (0.16 + 0.13 * caption.count("\n")) / figure.get_figheight() + 0.02
    figure.tight_layout(rect=(0, room, 0.8, 0.97))
    legend(figure)
    return figure


def _settings(found: Agreement) -> list[str]:
    """The setting with most cells, then a line for each other one, which is not drawn."""
    (most, _), *others = Counter(pair.setting for pair in found.pairs).most_common()
    cells = ((name, "1 cell" if count == 1 else f"{count} cells") for name, count in others)
    return [most, *(f"Not drawn: {number} of {name}." for name, number in cells)]


def _panel(axes: Axes, pairs: list[Agreeing], attacks: list[str]) -> None:
    """Every attack keeps its color and marker from panel to panel, drawn or not."""
    ends, band = [0, 100], 100 * FAR_DIFFERENCE
    axes.plot(ends, ends, color="gray", lw=0.8, zorder=0)
    axes.fill_between(ends, [-band, 100 - band], [band, 100 + band], color="gray", alpha=0.12, lw=0)
    names = short(attacks)
    for number, attack in enumerate(attacks):
        own = [pair for pair in pairs if pair.attack == attack]
        color = "black" if attack in CONTROLS else f"C{number % 10}"
        axes.errorbar(
            [100 * pair.printed for pair in own],
            [100 * pair.measured for pair in own],
            [100 * (pair.cell.std or 0.0) for pair in own],
            fmt=CONTROL_MARKERS.get(attack, CURVE_STYLES[number % len(CURVE_STYLES)][0]),
            color=color,
            ms=5,
            elinewidth=0.7,
            alpha=0.85,
            label=names[attack],
        )
    mark_chance(axes, [str(pair.cell.axes["dataset"]) for pair in pairs], "both")
    axes.set(xlim=(0, 103), ylim=(0, 103), aspect="equal")
    axes.set_xlabel("printed (%)", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)


def _caption(found: Agreement, setting: str) -> list[str]:
    lines = ["Band: 15 points. Dotted: chance."]
    if any(pair.cell.std for pair in found.pairs if pair.setting == setting):
        lines = [f"{lines[0]} Bars: standard deviation over seeds."]
    drawn = [r for r in found.correlations if (r["attack"], r["setting"]) == ("all", setting)]
    for row in sorted(drawn, key=lambda row: group_order(row["group"])):
        if row["spearman"] is None:
            cells = "1 cell" if row["n"] == 1 else f"{row['n']} cells"
            lines.append(f"{row['group']}: {cells}, too few for a correlation.")
            continue
        said = ", ".join(
            f"{sign} = {row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"
            for sign, name in (("ρ", "spearman"), ("τ", "kendall"))
        )
        error = f"mean error {decimal(row['mean_error_acc'], 1, 2)} points"
        lines.append(f"{row['group']}: {row['n']} cells, {error}, {said}.")
    return lines
