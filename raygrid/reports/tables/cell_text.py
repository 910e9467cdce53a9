"""What a cell says: the only place where fractions become percent."""

from __future__ import annotations

from collections import Counter

from raygrid.core.text import NO_NUMBER, decimal
from raygrid.literature.printed import Printed
from raygrid.reports.statistics import LEAST_POINTS
from raygrid.reports.tables.cells import Cell
from raygrid.reports.tables.layout import NORM_MEASURES, UNITS, Panel

EPOCH_MEASURES = ("peak_epoch", "epochs_to_half")
BAD_OUTCOMES = ("failed", "diverged")


def measured_text(cell: Cell | None, digits: int = 2, interval: bool = False) -> str:
    """Mean ± std in percent (or epochs), and whatever is not as planned: n of N, failures.

    interval: whether the 95 % interval stands first in the brackets.
    """
    if cell is None:
        return NO_NUMBER
    if cell.value is None:
        return _absence(cell)
    if cell.facts.get("never") == cell.n:
        return "never" + _aside(cell)
    text = number(cell.value, cell.metric, digits)
    if cell.std is not None:
        text += f" ± {number(cell.std, cell.metric, digits)}"
    if bounded(cell):
        text = f"≥ {text}"
    ends = [cell.low, cell.high] if interval and cell.low is not None else []
    said = " to ".join(number(end, cell.metric, digits) for end in ends if end is not None)
    return text + _aside(cell, said)


def bounded(cell: Cell) -> bool:
    """Whether it is a lower bound: a worst case without a learner, epochs that were not enough."""
    return cell.metric.endswith("_partial") or bool(cell.facts.get("never"))


def attained(cell: Cell) -> str:
    """The learner of a worst case, or what a defense chose; of several how many seeds each won."""
    if cell.facts.get("worst_learner"):
        return str(cell.facts["worst_learner"])
    won = cell.facts.get("worst_learners") or cell.facts.get("winners") or {}
    names = Counter(won).most_common()
    if len(names) == 1:
        return str(names[0][0])
    return ", ".join(f"{count} {name}" for name, count in names)


def number(value: float, metric: str, digits: int) -> str:
    """An accuracy in percent, an epoch as it is, minutes and dB with two digits, norms three."""
    if metric in UNITS:
        return decimal(value, 3 if metric in NORM_MEASURES else 2)
    return (
        decimal(value, 1).removesuffix(".0")
        if metric in EPOCH_MEASURES
        else decimal(value, digits, 2)
    )


def _absence(cell: Cell) -> str:
    """Why there is no number, in one word where all seeds share it."""
    words = [name for name in BAD_OUTCOMES if getattr(cell, name)]
    if cell.stopped and cell.metric in ("final_acc", "gap"):
        words.append("stopped early")
    return ", ".join(words) or NO_NUMBER


def _aside(cell: Cell, interval: str = "") -> str:
    """In brackets: interval, learner of a worst case, what is missing, drop, missing seeds."""
    notes = [text for text in (interval, attained(cell)) if text]
    for fact, word in (("missing", "without"), ("fewer_seeds", "fewer seeds:")):
        if cell.facts.get(fact):
            notes.append(f"{word} {', '.join(cell.facts[fact])}")
    if cell.facts.get("drop") is not None:
        notes.append(f"drop {decimal(cell.facts['drop'], 0, 2)} %")
    if "control" in cell.facts:
        notes.append(f"control {number(cell.facts['control'], cell.metric, 1)}")
    if "p" in cell.facts and cell.n >= LEAST_POINTS:
        notes.append(f"p = {cell.facts['p']:.2g}")
    if 0 < cell.facts.get("never", 0) < cell.n:
        notes.append(f"{cell.facts['never']} never")
    if cell.n < cell.of:
        notes.append(f"n = {cell.n} of {cell.of}")
        notes += [f"{count} {name}" for name in BAD_OUTCOMES if (count := getattr(cell, name))]
        if cell.stopped:
            notes.append(f"{cell.stopped} stopped early")
    return f" ({'; '.join(notes)})" if notes else ""


def quoted(cell: Cell | None, panel: Panel) -> str:
    """The published number with its marks; what sets it apart from others of the panel."""
    if cell is None or (printed := cell.printed) is None:
        return ""
    text = printed_text(printed, cell.metric, max(panel.digits, 2))
    if printed.apart != panel.apart:
        text += f", {printed.apart}"
    return f"[{text}]{marks(printed)}"


def printed_text(printed: Printed, metric: str, digits: int) -> str:
    """The number with its spread, if the paper has one."""
    text = number(printed.value, metric, digits)
    if printed.std is not None:
        text += f" ± {number(printed.std, metric, digits)}"
    return text


def marks(printed: Printed) -> str:
    return "*" * printed.differs + "†" * bool(printed.contradicting) + "‡" * printed.suspect
