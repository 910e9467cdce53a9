"""Partial poisoning: what a model learns of the poisoned and the clean share, by attack."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from raygrid.core.errors import SpecError
from raygrid.core.labels import short
from raygrid.reports.drawing import CURVE_STYLES, mark_chance
from raygrid.reports.figures.canvas import finish, legend, line, panels, percent_axis, plain
from raygrid.reports.tables.layout import order
from raygrid.reports.tables.notes import selected

SET_LABELS = {
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
        for (view, label), style in zip(SET_LABELS.items(), CURVE_STYLES, strict=False):
            line(axes, here, f"{view}_{what}", style, label)
        rest = done[(done["method"] == "withheld") & (done["poison_ratio"] < 1)]
        line(axes, rest, f"clean_test_{what}", "x-", "test set, clean part alone", "gray")
        axes.set_title(short(attacks)[attack], fontsize=9)
        axes.set_yscale("linear" if what == "acc" else "log")
        if what == "acc":
            axes.set_ylim(0, 103)
            mark_chance(axes, here["dataset"])
        percent_axis(axes, here["poison_ratio"])
    grid[0].set_ylabel("accuracy (%)" if what == "acc" else "cross-entropy")
    legend(figure)
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
            style = CURVE_STYLES[index % len(CURVE_STYLES)]
            line(axes, here[here["defense"] == defense], "final_acc", style, defense, color)
            if (control & same).any():
                rest = done[(control | (done["attack"] == "clean")) & same]
                line(axes, rest, "final_acc", "x:", "", color)
        if control.any():
            axes.plot([], [], "x:", color="gray", ms=3.5, label="clean part alone")
        axes.set_title(short(attacks)[attack], fontsize=9)
        axes.set_ylim(0, 103)
        mark_chance(axes, here["dataset"])
        percent_axis(axes, here["poison_ratio"])
    grid[0].set_ylabel("test accuracy after the last epoch (%)")
    legend(figure)
    lines = ["Accuracy over the poisoned share, by defense; 0 % is clean."]
    if control.any():
        lines.append("Crosses: trained on the clean part alone, with the same defense.")
    lines += selected(zip(done["defense"], done["selection"], strict=True))
    caption = " ".join(lines)
    return finish(figure, trials, caption, right=1 - 1.4 / figure.get_figwidth())
