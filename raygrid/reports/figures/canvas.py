"""What the figures share: paper, panels, points, lines, captions."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raygrid.core.errors import SpecError
from raygrid.core.labels import short
from raygrid.core.lazy import np
from raygrid.reports.drawing import LEGEND_LETTERS, blank, enlarge_letters, folded, name_ticks
from raygrid.reports.tables.layout import data_name, order
from raygrid.reports.tables.trial_lines import AXES, VICTIM_AXES
from raygrid.trials.contest import PLAIN_DEFENSES

NARROW_LETTERS = 24  # letters of a name beside a row, or of a class
LETTER_INCHES = 0.06  # inches of a small letter


def one_victim(trials: pd.DataFrame) -> str:
    """The victim of all rows in words; raises SpecError if there are several, or no row."""
    victims = trials[VICTIM_AXES].drop_duplicates()
    if len(victims) != 1:
        several = "; ".join(", ".join(map(str, line)) for line in victims.to_numpy())
        raise SpecError(f"a figure shows one victim, these rows have {len(victims)}: {several}")
    each = trials.drop_duplicates([*AXES, "seed"])  # of a trial's epochs one
    return victim_text(victims.iloc[0], list(each["other_data"]), "trials")


def victim_text(victim: Iterable[str], others: Sequence[str], unit: str) -> str:
    """The values of VICTIM_AXES in words. others, unit: see `data_name`."""
    dataset, protocol, architecture, learner = map(str, victim)
    data = data_name(dataset, others, unit)
    return f"{data}, protocol {protocol}, {architecture}, {learner}"


def title(figure: Figure, text: str) -> None:
    """The title of a figure, in as many lines as its width asks for."""
    figure.suptitle(folded(text, int(13 * figure.get_figwidth())), x=0.01, ha="left", fontsize=9)


def plain(trials: pd.DataFrame) -> pd.DataFrame:
    """The rows of plain training: `standard`, else `none`; raises SpecError for several victims."""
    one_victim(trials)
    found = [name for name in reversed(PLAIN_DEFENSES) if (trials["defense"] == name).any()]
    if not found:
        raise SpecError("no trial of plain training: the defense standard or none is needed")
    return trials[trials["defense"] == found[0]]


def panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels of the same y axis, three or four in a row."""
    wide = count if count < 5 else 3 if count < 7 else 4
    tall = math.ceil(count / wide)
    figure = blank(1.8 + 1.7 * wide, 1.2 + 1.8 * tall)
    grid = list(figure.subplots(tall, wide, squeeze=False, sharey=True).flat)
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, grid[:count]


def name_row(axes: Axes, name: str) -> None:
    """The name of a row, left of its first picture; so narrow that the pictures stay large."""
    axes.set_ylabel(folded(name, NARROW_LETTERS), fontsize=7, rotation=0, ha="right", va="center")


def name_columns(axes: Axes, centers: Sequence[float], names: Sequence[str], wide: float) -> None:
    """The classes above their images, which are so many inches wide; aslant where they are long."""
    aslant = max(map(len, names), default=0) * LETTER_INCHES > wide
    axes.xaxis.tick_top()
    name_ticks(axes.xaxis, centers, names, NARROW_LETTERS, fontsize=7, rotation=35 if aslant else 0)
    axes.tick_params(length=0, pad=2)
    for label in axes.get_xticklabels() if aslant else ():
        label.set(ha="left", rotation_mode="anchor")


def points_of(trials: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """One line an attack: mean of each column over the finished seeds, and `<column>_std`."""
    done = trials[trials["status"] == "done"]
    groups = done.astype(dict.fromkeys(columns, float)).groupby("attack")[list(columns)]
    means = groups.mean().join(groups.std(ddof=1).add_suffix("_std")).reset_index()
    return means.sort_values("attack", key=lambda names: names.map(order))


def scatter(
    axes: Axes, points: pd.DataFrame, x: str, y: str, scale: float, hollow: str | None = None
) -> None:
    """Numbered points with error bars, named in a legend on the right; y in percent.

    x is taken times `scale`. hollow: the column that says which markers stay open.
    """
    names = short(list(points["attack"]))
    for number, (_, point) in enumerate(points.iterrows(), 1):
        clean = point["attack"] == "clean"
        color = "black" if clean else f"C{number % 10}"
        spot = scale * point[x], 100 * point[y]
        bars = scale * point[f"{x}_std"], 100 * point[f"{y}_std"]
        filled = hollow is None or not point[hollow] > 0
        sizes = [float(np.nan_to_num(bar)) for bar in bars]
        axes.errorbar(*spot, sizes[1], sizes[0], fmt="none", color=color, elinewidth=0.7)
        axes.plot(
            *spot,
            "o",
            ms=9,
            color=color,
            mfc=color if filled else "white",
            alpha=0.9,
            mew=1.2,
            label=f"{number}  {folded(names[point['attack']], LEGEND_LETTERS)}",
        )
        axes.text(
            *spot,
            str(number),
            fontsize=5.5,
            ha="center",
            va="center",
            color="white" if filled else color,
            clip_on=True,
        )
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            fontsize=6.5,
            frameon=False,
            loc="center left",
            bbox_to_anchor=(1.01, 0.5),
            markerscale=0.5,
            labelspacing=0.25,
        )


def line(
    axes: Axes,
    rows: pd.DataFrame,
    column: str,
    style: str,
    label: str,
    color: str | None = None,
) -> None:
    """Mean over seeds against the poison ratio, with the standard deviation as bars."""
    groups = rows.dropna(subset=[column]).groupby("poison_ratio")[column]
    if groups.ngroups:
        scale = scale_of(column)
        means, spread = scale * groups.mean(), scale * groups.std(ddof=1).fillna(0.0)
        axes.errorbar(
            100 * means.index,
            means,
            spread,
            fmt=style,
            ms=3.5,
            lw=1.1,
            capsize=2,
            label=label,
            color=color,
        )


def band(axes: Axes, rows: pd.DataFrame, column: str, label: str, color: str) -> None:
    """Mean over seeds by epoch, the range of the seeds shaded."""
    rows = rows.dropna(subset=[column])
    if rows.empty:
        return
    groups, scale = rows.groupby("epoch")[column], scale_of(column)
    means, low, high = (scale * values for values in (groups.mean(), groups.min(), groups.max()))
    axes.plot(means.index, means, color=color, lw=1.2, label=label)
    axes.fill_between(means.index, low, high, color=color, alpha=0.2, lw=0)


def seeds_in_bands(epochs: pd.DataFrame) -> str:
    """What lines and bands over epochs show, for a caption."""
    several = epochs.groupby([*VICTIM_AXES, "attack"])["seed"].nunique().max() > 1
    return "Lines: mean over seeds; bands: all seeds." if several else "One seed."


def scale_of(column: str) -> float:
    """Accuracies are drawn in percent, losses as they are."""
    return 100.0 if column.endswith("_acc") else 1.0


def percent_axis(axes: Axes, ratios: pd.Series[float]) -> None:
    """Ticks at the poison ratios that were run."""
    axes.set_xticks(sorted({round(100 * ratio, 6) for ratio in ratios}))
    axes.set_xlabel("poisoned (%)")


def legend(figure: Figure) -> None:
    """One legend for all panels, on the right; a panel need not have every line."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    if found:
        labels = [folded(name, LEGEND_LETTERS) for name in found]
        figure.legend(found.values(), labels, loc="center right", fontsize=7, frameon=False)


def finish(figure: Figure, trials: pd.DataFrame, caption: str, right: float = 1.0) -> Figure:
    """Title, caption below, sizes of text; the caption is the figure's label as well.

    right: where the panels end, as a share of the width, to leave room for a legend.
    """
    width, height = figure.get_size_inches()
    text = textwrap.fill(caption, int(14 * width))
    low = 0.13 * (text.count("\n") + 2)
    for axes in figure.axes:
        axes.tick_params(which="both", labelsize=8)
        axes.grid(alpha=0.25)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_fontsize(8)
    title(figure, one_victim(trials))
    figure.text(0.01, 0.02, text, fontsize=7, color="#444444", va="bottom")
    enlarge_letters(figure)
    figure.tight_layout(rect=(0, low / height, right, 1 - 0.05 / height))
    figure.set_label(caption)
    return figure
