"""Scatters with correlations: a point is an attack, averaged over seeds."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from raygrid.core.errors import SpecError, unknown
from raygrid.reports.drawing import blank, mark_chance
from raygrid.reports.figures.canvas import finish, plain, points_of, scatter
from raygrid.reports.statistics import correlate

SPEED_MEASURE = "epochs_to_half"
POISON_LABELS = {
    "transfer_rate": "poisoned images that clean victims get wrong (%)",
    "psnr": "PSNR of poisoned images (dB)",
}
"""What is known of a poison without a victim that was trained on it."""
ACCURACY_LABELS = {
    "final_acc": "test accuracy after the last epoch (%)",
    "peak_acc": "highest test accuracy (%)",
}


def peak_against_final(trials: pd.DataFrame) -> Figure:
    """Scatter of the highest over the last test accuracy, with the diagonal and correlations.

    The clean control is drawn and not correlated.
    """
    both = ["final_acc", "peak_acc"]
    points = points_of(_whole(trials).dropna(subset=both), both)  # means of the same seeds
    figure = blank(7.2, 5.6)
    axes = figure.add_subplot()
    axes.plot([0, 100], [0, 100], color="gray", lw=0.8, zorder=0)
    mark_chance(axes, trials["dataset"], "both")
    scatter(axes, points, "final_acc", "peak_acc", 100.0)
    axes.set(xlim=(0, 103), ylim=(0, 103), aspect="equal")
    axes.set_xlabel(ACCURACY_LABELS["final_acc"])
    axes.set_ylabel(ACCURACY_LABELS["peak_acc"])
    poisons = points[points["attack"] != "clean"]
    said = _say(poisons["final_acc"], poisons["peak_acc"])
    return finish(figure, trials, f"Highest (chosen on the test set) against last accuracy. {said}")


def speed_against_peak(trials: pd.DataFrame) -> Figure:
    """Scatter of the highest accuracy over the epochs until the training loss is below 0.5.

    An attack that never gets there stands one past the planned epochs, as an open marker. Raises
    SpecError where smoothed labels keep all losses above.
    """
    whole = _whole(trials).dropna(subset=["peak_acc", SPEED_MEASURE])
    if whole.empty:
        raise SpecError("no finished trial has a loss that gets below 0.5: labels are smoothed")
    points = points_of(whole, [SPEED_MEASURE, "peak_acc", "never"])
    figure = blank(7.2, 4.8)
    axes = figure.add_subplot()
    mark_chance(axes, trials["dataset"])
    scatter(axes, points, SPEED_MEASURE, "peak_acc", 1.0, hollow="never")
    axes.set_xscale("log")
    ticks = [
        t for t in (1, 2, 3, 5, 10, 20, 50, 100, 200) if t <= points[SPEED_MEASURE].max() * 1.3
    ]
    axes.set_xticks(ticks, list(map(str, ticks)))
    axes.minorticks_off()
    axes.set(xlim=(0.8, 1.3 * points[SPEED_MEASURE].max()), ylim=(0, 103))
    axes.set_xlabel("epochs until the training loss is below 0.5")
    axes.set_ylabel(ACCURACY_LABELS["peak_acc"])
    poisons = points[points["attack"] != "clean"]
    said = _say(poisons[SPEED_MEASURE], poisons["peak_acc"])
    return finish(
        figure,
        trials,
        f"Open: a seed never got there and counts as one epoch past the plan. {said}",
    )


def answer_against(trials: pd.DataFrame, answer: str, accuracy: str) -> Figure:
    """Scatter of an accuracy (of ACCURACY_LABELS) over what a poison was asked (of POISON_LABELS).

    trials: lines of `reports.tables.frame.frame` with the answer in a column of its own: the share
    `transfer_rate` or the dB `psnr`; lines without one are left out. The clean control is drawn
    and not correlated.
    """
    for kind, name, known in (
        ("answer", answer, POISON_LABELS),
        ("accuracy", accuracy, ACCURACY_LABELS),
    ):
        if name not in known:
            raise SpecError(unknown(kind, name, known))
    there = _whole(trials).dropna(subset=[answer, accuracy])
    if there.empty:
        raise SpecError(f"no finished trial has both {answer} and {accuracy}")
    points = points_of(there, [answer, accuracy])
    figure = blank(7.2, 4.8)
    axes = figure.add_subplot()
    mark_chance(axes, trials["dataset"])
    scatter(axes, points, answer, accuracy, 1.0 if answer == "psnr" else 100.0)
    axes.set(xlabel=POISON_LABELS[answer], ylabel=ACCURACY_LABELS[accuracy], ylim=(0, 103))
    poisons = points[points["attack"] != "clean"]
    return finish(figure, trials, _say(poisons[answer], poisons[accuracy]))


def _whole(trials: pd.DataFrame) -> pd.DataFrame:
    """Plain training on sets that are clean or poisoned altogether."""
    rows = plain(trials)
    whole = rows[rows["poison_ratio"].isin((0.0, 1.0)) & (rows["status"] == "done")]
    if whole["peak_acc"].notna().sum() == 0:
        raise SpecError("no finished trial on a set that is clean or poisoned altogether")
    return whole


def _say(x: pd.Series[float], y: pd.Series[float]) -> str:
    """The correlations in words, or that there are too few points."""
    try:
        return f"Without clean: {correlate(x.tolist(), y.tolist())}."
    except SpecError:
        return "Too few points for a correlation."
