"""Measured against printed accuracy, one point a cell."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raygrid.core.errors import SpecError
from raygrid.core.labels import short
from raygrid.reports.analysis.agreement import FAR, Agreeing, Agreement
from raygrid.reports.drawing import blank, mark_chance
from raygrid.reports.figures.canvas import STYLES, VICTIM, legend, title, victim_text

GROUPS = ("as printed", "other surrogate", "partly poisoned")
"""Panels from left to right; controls stand in each."""


def draw_agreement(found: Agreement) -> Figure:
    """Scatter of measured over printed accuracy with the diagonal and the band of 15 points.

    An attack is a color and a marker; poisons that were made with another network than the
    paper's, and those of a part of the images, stand in panels of their own. Raises SpecError for
    victims of several settings.
    """
    settings = {pair.setting for pair in found.pairs}
    if len(settings) != 1:
        raise SpecError(f"a figure shows one victim, these are {', '.join(sorted(settings))}")
    there = {pair.group for pair in found.pairs}
    groups = [group for group in GROUPS if group in there] or GROUPS[:1]
    figure = blank(4.2 + 2.2 * len(groups), 4.6)
    panels = list(figure.subplots(1, len(groups), squeeze=False, sharey=True).flat)
    attacks = list(dict.fromkeys(pair.attack for pair in found.pairs))
    for axes, group in zip(panels, groups, strict=True):
        members = [p for p in found.pairs if p.group in (group, "control")]
        _panel(axes, members, attacks)
        axes.set_title(group, fontsize=9)
    panels[0].set_ylabel("measured test accuracy (%)", fontsize=8)
    caption = _caption(found)
    cells = [pair.cell for pair in found.pairs]
    victim = (str(cells[0].axes[name]) for name in VICTIM)
    others = [str(cell.facts.get("other_data") or "") for cell in cells]
    title(figure, victim_text(victim, others, "cells"))
    figure.text(0.01, 0.02, caption, fontsize=7, color="#444444", va="bottom")
    figure.set_label(caption)
    figure.tight_layout(rect=(0, 0.08, 0.8, 0.97))
    legend(figure, panels[-1])
    return figure


def _panel(axes: Axes, pairs: list[Agreeing], attacks: list[str]) -> None:
    """Every attack keeps its color and marker from panel to panel, drawn or not."""
    ends, band = [0, 100], 100 * FAR
    axes.plot(ends, ends, color="gray", lw=0.8, zorder=0)
    axes.fill_between(ends, [-band, 100 - band], [band, 100 + band], color="gray", alpha=0.12, lw=0)
    names = short(attacks)
    for number, attack in enumerate(attacks):
        own = [pair for pair in pairs if pair.attack == attack]
        color = "black" if attack in ("clean", "withheld") else f"C{number % 10}"
        axes.errorbar(
            [100 * pair.printed for pair in own],
            [100 * pair.measured for pair in own],
            [100 * (pair.cell.std or 0.0) for pair in own],
            fmt=STYLES[number % len(STYLES)][0],
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


def _caption(found: Agreement) -> str:
    lines = ["Band: 15 points. Dotted: chance."]
    if any(pair.cell.std for pair in found.pairs):
        lines = [f"{lines[0]} Bars: standard deviation over seeds."]
    for row in found.correlations:
        if row["attack"] != "all":
            continue
        if row["spearman"] is None:
            lines.append(f"{row['group']}: {row['n']} cells, too few for a correlation.")
            continue
        said = ", ".join(
            f"{sign} = {row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"
            for sign, name in (("ρ", "spearman"), ("τ", "kendall"))
        )
        error = f"mean error {100 * row['mean_error_acc']:.1f} points"
        lines.append(f"{row['group']}: {row['n']} cells, {error}, {said}.")
    return "\n".join(lines)
