"""Figures from stored rows: peak against final, speed of learning, partial poisoning, curves.

Every function takes a tidy frame and gives a matplotlib figure with its caption below; none of
them mixes datasets, protocols or victims. A point is an attack, averaged over seeds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from raygrid.core.errors import SpecError
from raygrid.published.reference import load
from raygrid.reports.figures.canvas import (
    STYLES,
    VICTIM,
    band,
    blank,
    finish,
    legend,
    line,
    panels,
    percent_axis,
    plain,
)
from raygrid.reports.figures.correlation import Correlation as Correlation
from raygrid.reports.figures.correlation import correlate as correlate
from raygrid.reports.figures.scatters import answer_against as answer_against
from raygrid.reports.figures.scatters import peak_against_final as peak_against_final
from raygrid.reports.figures.scatters import speed_against_peak as speed_against_peak
from raygrid.reports.tables.frame import Row, curves, frame
from raygrid.reports.tables.labels import short
from raygrid.reports.tables.layout import order
from raygrid.reports.tables.notes import selected

WIDE = 5  # groups of training curves side by side
VIEWS = {
    "unlearnable": "poisoned images",
    "original": "their originals",
    "clean_train": "clean part of training set",
    "clean_test": "test set (unseen)",
}


def partial_poisoning(trials: pd.DataFrame, what: str = "acc") -> Figure:
    """Four views of a model trained on a partly poisoned set, one panel an attack.

    what: `acc` in percent or `loss` (mean cross-entropy, log axis). Views of the last epoch,
    without augmentation. The control that is trained on the clean part alone (`withheld`) is
    drawn in gray where it was run, by its accuracy on the test set.
    """
    if what not in ("acc", "loss"):
        raise SpecError(f"what is {what!r}, allowed are acc, loss")
    done = plain(trials)
    done = done[(done["status"] == "done") & (done["poison_ratio"] > 0)]
    attacks = sorted(set(done.loc[done["unlearnable_acc"].notna(), "attack"]), key=order)
    if not attacks:
        raise SpecError("no trial was partly poisoned: poison_ratio between 0 and 1 is needed")
    figure, grid = panels(len(attacks))
    for axes, attack in zip(grid, attacks, strict=False):
        here = done[(done["attack"] == attack) & (done["poison_ratio"] < 1)]
        for (view, label), style in zip(VIEWS.items(), STYLES, strict=False):
            line(axes, here, f"{view}_{what}", style, label)
        rest = done[(done["method"] == "withheld") & (done["poison_ratio"] < 1)]
        line(axes, rest, f"clean_test_{what}", "x-", "test set, clean part alone", "gray")
        axes.set_title(short(attacks)[attack], fontsize=9)
        axes.set_yscale("linear" if what == "acc" else "log")
        percent_axis(axes, here["poison_ratio"])
    grid[0].set_ylabel("accuracy (%)" if what == "acc" else "cross-entropy")
    legend(figure, grid[0])
    caption = (
        "Where the originals fare like the unseen images and not like the clean part, what the "
        "poisoned images show was not learned."
    )
    return finish(figure, trials, caption, right=1 - 1.9 / figure.get_figwidth())


def partial_under_defenses(trials: pd.DataFrame) -> Figure:
    """Test accuracy over the poisoned share, a line a defense, a panel an attack.

    Beside each line, as crosses of its color, the control that the same defense trains on the clean
    part alone (`withheld`), where it was run.
    """
    done = trials[(trials["status"] == "done") & trials["final_acc"].notna()]
    control = done["method"] == "withheld"
    poisoned = done[(done["attack"] != "clean") & ~control]
    shares = poisoned.groupby("attack")["poison_ratio"].nunique()
    attacks = sorted(shares[shares > 1].index, key=order)
    if not attacks:
        raise SpecError("no attack was run at two poison ratios")
    figure, grid = panels(len(attacks))
    defenses = sorted(set(done["defense"]), key=order)
    for axes, attack in zip(grid, attacks, strict=False):
        here = done[done["attack"].isin((attack, "clean"))]
        for index, defense in enumerate(defenses):
            color, same = f"C{index % 10}", done["defense"] == defense
            style = STYLES[index % len(STYLES)]
            line(axes, here[here["defense"] == defense], "final_acc", style, defense, color)
            if (control & same).any():
                rest = done[(control | (done["attack"] == "clean")) & same]
                line(axes, rest, "final_acc", "x:", "", color)
        if control.any():
            axes.plot([], [], "x:", color="gray", ms=3.5, label="clean part alone")
        axes.set_title(short(attacks)[attack], fontsize=9)
        axes.set_ylim(0, 103)
        percent_axis(axes, here["poison_ratio"])
    grid[0].set_ylabel("test accuracy after the last epoch (%)")
    legend(figure, grid[0])
    lines = ["Accuracy over the poisoned share, by defense; 0 % is clean."]
    if control.any():
        lines.append("Crosses: trained on the clean part alone, with the same defense.")
    lines += selected(zip(done["defense"], done["selection"], strict=True))
    caption = " ".join(lines)
    return finish(figure, trials, caption, right=1 - 1.4 / figure.get_figwidth())


def training_curves(
    epochs: pd.DataFrame, groups: Mapping[str, Sequence[str]] | None = None
) -> Figure:
    """Training loss and below it test accuracy by epoch, a column a group, five of them a row.

    epochs: `reports.tables.curves`, of which sets that are clean or poisoned altogether are drawn.
    groups: attacks by the title of their column; without it the
    attacks of one name stand together. The clean control is in every column. Lines are means over
    seeds, bands reach from the smallest to the largest.
    """
    epochs = plain(epochs)
    epochs = epochs[(epochs["status"] == "done") & epochs["poison_ratio"].isin((0.0, 1.0))]
    groups = groups or _by_name(epochs["attack"].unique())
    if not groups or epochs.empty:
        raise SpecError("no finished trial of plain training has a history")
    wide = min(WIDE, len(groups))
    tall = math.ceil(len(groups) / wide)
    figure = blank(2.2 + 2.6 * wide, 0.6 + 4.6 * tall)
    grid = figure.subplots(2 * tall, wide, squeeze=False, sharex=True, sharey="row")
    names = short(["clean", *(attack for attacks in groups.values() for attack in attacks)])
    for axes in grid[-2:, 1 + (len(groups) - 1) % wide :].flat:
        axes.set_visible(False)
    for number, (title, attacks) in enumerate(groups.items()):
        row, column = divmod(number, wide)
        loss, acc = grid[2 * row : 2 * row + 2, column]
        for index, attack in enumerate(["clean", *(a for a in attacks if a != "clean")]):
            here = epochs[epochs["attack"] == attack]
            color = "black" if attack == "clean" else f"C{(index - 1) % 10}"
            band(loss, here, "train_loss", names[attack], color)
            band(acc, here, "test_acc", names[attack], color)
        loss.axhline(0.5, color="gray", lw=0.6, ls=":")
        loss.set_title(title, fontsize=9)
        acc.set(xlabel="epoch", ylim=(0, 103))
        acc.tick_params(labelbottom=True)
        if acc.get_legend_handles_labels()[0]:
            acc.legend(fontsize=6, frameon=False)
        if column == 0:
            loss.set_ylabel("training loss")
            acc.set_ylabel("test accuracy (%)")
    return finish(figure, epochs, "Lines: mean over seeds; bands: all seeds. Dotted: loss 0.5.")


def _by_name(attacks: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for attack in sorted(attacks, key=order):
        if attack != "clean":
            groups.setdefault(attack.partition("(")[0], []).append(attack)
    return groups


def published_scatter() -> Figure:
    """Peak against final accuracy as printed by Sandoval-Segura et al., table 1: 25 poisons."""
    return peak_against_final(printed("learned_faster", "1"))


def printed(paper: str, table: str) -> pd.DataFrame:
    """The trials of a printed table as a frame, one seed each, as if they had been run."""
    rows = load()
    rows = rows[(rows["paper"] == paper) & (rows["table"] == table) & rows["spec"].notna()]
    made: dict[str, dict[str, Any]] = {}
    for spec, measure, value in zip(rows["spec"], rows["measure"], rows["accuracy"], strict=True):
        made.setdefault(spec, {"spec": spec, "key": spec, "status": "done"})[measure] = value
    return frame(made.values())


def write_figures(out_dir: Path, rows: Iterable[Row]) -> list[Path]:
    """Draw what the rows suffice for into `<out_dir>/figures/`, one set of files a victim."""
    folder = out_dir / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    kept = list(rows)
    trials, epochs = frame(kept), curves(kept)
    written = []
    for victim, here in trials.groupby(VICTIM, sort=True):
        same = (epochs[VICTIM] == list(victim)).all(axis=1)
        drawings: dict[str, Callable[[], Figure]] = {
            "peak-final": partial(peak_against_final, here),
            "speed-peak": partial(speed_against_peak, here),
            "partial-acc": partial(partial_poisoning, here, "acc"),
            "partial-loss": partial(partial_poisoning, here, "loss"),
            "partial-defenses": partial(partial_under_defenses, here),
            "curves": partial(training_curves, epochs[same]),
        }
        for name, draw in drawings.items():
            try:
                figure = draw()
            except SpecError:  # not enough of the right trials for this one
                continue
            slug = re.sub(r"[^A-Za-z0-9.]+", "_", "-".join(map(str, victim))).strip("_")
            path = folder / f"{name}-{slug}.png"
            figure.savefig(path)
            written.append(path)
    return written
