"""How far measured cells say what the papers printed: differences, rank correlations, winners."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from raygrid.core.errors import DataError, SpecError
from raygrid.reports.analysis.counterparts import CONTROL_GROUP, PARTLY_POISONED, counterpart
from raygrid.reports.statistics import Correlation, correlate
from raygrid.reports.tables.cells import Cell, cells_of
from raygrid.reports.tables.trial_lines import in_order, trial_lines
from raygrid.trials import contest

if TYPE_CHECKING:
    from raygrid.reports.analysis.records import EvaluationRow

FAR_DIFFERENCE = 0.15
"""Differences, as fractions, from which on a cell is listed."""
TIE_DIFFERENCE = 0.01
"""Difference, as a fraction, up to which two cells count as equally good."""


@dataclass(frozen=True)
class Agreeing:
    """A measured cell and the number that stands for it in a paper. Fractions.

    group: `as printed` for poisons that need no network or have the paper's own, on the network
    that was printed or, for the `airbench` family, compared with ResNet-18; `control`: no poison;
    else all that is the case of: `other network`, the cell's stands in for the printed one as
    MobileNetV2's small one does; `other surrogate`, the poison was made with a network that the
    paper did not use, or with other steps; `other purifier`, a defense's own networks have another
    size or were fitted for another time; `other method`, the paper ran another attack or defense
    under that name; `other data`, the images are not those that the dataset's name stands for, or
    others than the paper's; `partly poisoned`, only a part of the images is.
    network: the architecture whose number was printed.
    """

    cell: Cell
    group: str
    network: str
    printed: float
    source: str

    @property
    def attack(self) -> str:
        return str(self.cell.axes["attack"])

    @property
    def defense(self) -> str:
        return str(self.cell.axes["defense"])

    @property
    def poison_ratio(self) -> float:
        return float(self.cell.axes["poison_ratio"])

    @property
    def measured(self) -> float:
        assert self.cell.value is not None
        return self.cell.value

    @property
    def difference(self) -> float:
        """Measured minus printed."""
        return self.measured - self.printed

    @property
    def setting(self) -> str:
        """What pairs must share to be compared with each other."""
        names = ("dataset", "architecture", "learner", "protocol")
        return "/".join(str(self.cell.axes[name]) for name in names)

    def row(self) -> EvaluationRow:
        return {
            "setting": self.setting,
            "group": self.group,
            "attack": self.attack,
            "poison_ratio": self.poison_ratio,
            "defense": self.defense,
            "measured_acc": self.measured,
            "std_acc": self.cell.std,
            "n": self.cell.n,
            "printed_acc": self.printed,
            "printed_on": self.network,
            "difference_acc": self.difference,
            "source": self.source,
            "far": "far" if abs(self.difference) > FAR_DIFFERENCE else "",
        }


@dataclass(frozen=True)
class Agreement:
    """What `agreement` found out, each part as rows.

    cells: one a pair. correlations: over all cells of a setting and group, and over the defenses
    (and ratios, where a part is poisoned) of each attack, with 95 % bootstrap intervals. winners:
    the strongest attack on each defense and the best defense of each attack, by both, of cells
    that are poisoned altogether.
    """

    pairs: tuple[Agreeing, ...]
    correlations: tuple[EvaluationRow, ...]
    winners: tuple[EvaluationRow, ...]

    @property
    def cells(self) -> list[EvaluationRow]:
        return [pair.row() for pair in self.pairs]


def agreement(rows: Iterable[Mapping[str, Any]], metric: str = "final_acc") -> Agreement:
    """Compare finished trials with what papers printed for them.

    metric: `final_acc` or `peak_acc`. Raises DataError if no row has a printed counterpart.
    """
    # Bootstrap intervals and ties hang on the order of cells, which is chance in a log.
    pairs = tuple(_pairs(cells_of(trial_lines(in_order(rows)), metric).values(), metric))
    if not pairs:
        raise DataError("none of these trials has a number that a paper printed")
    return Agreement(pairs, tuple(_correlations(pairs)), tuple(_winners(pairs)))


def _pairs(cells: Iterable[Cell], metric: str) -> Iterator[Agreeing]:
    for cell in cells:
        found = None if cell.value is None else counterpart(cell, metric)
        if found is not None:
            printed = found.found
            yield Agreeing(cell, found.group, found.network, printed.value, printed.cite())


def _correlations(pairs: Sequence[Agreeing]) -> Iterator[EvaluationRow]:
    """Over all poisoned cells of a setting and group, then over the defenses of each attack."""
    poisoned = [pair for pair in pairs if pair.group != CONTROL_GROUP]
    for (setting, group), members in _by(poisoned, lambda p: (p.setting, p.group)).items():
        yield _correlation({"setting": setting, "group": group, "attack": "all"}, members)
        for attack, own in _by(members, lambda p: p.attack).items():
            if len(own) > 1:
                yield _correlation({"setting": setting, "group": group, "attack": attack}, own)


def _correlation(where: EvaluationRow, pairs: Sequence[Agreeing]) -> EvaluationRow:
    measured, printed = [p.measured for p in pairs], [p.printed for p in pairs]
    errors = [abs(pair.difference) for pair in pairs]
    row = {
        **where,
        "n": len(pairs),
        "mean_difference_acc": sum(p.difference for p in pairs) / len(pairs),
        "mean_error_acc": sum(errors) / len(errors),
        "far": sum(error > FAR_DIFFERENCE for error in errors),
    }
    try:
        found: Correlation | None = correlate(measured, printed)
    except SpecError:
        found = None
    for name in ("spearman", "kendall"):
        measure = None if found is None else getattr(found, name)
        for part in ("value", "low", "high"):
            key = name if part == "value" else f"{name}_{part}"
            row[key] = None if measure is None else getattr(measure, part)
    return row


def _winners(pairs: Sequence[Agreeing]) -> Iterator[EvaluationRow]:
    """Whether both name the same strongest attack on a defense, and the same best defense.

    Only what is an attack or a defense proper (`contest`) is among those that are named.

    same: `yes` if the measured and the printed winner are one; `tie` if they are within
    TIE_DIFFERENCE of each other by the measured numbers (or within the larger of their standard
    deviations over seeds) or by the printed ones; else `no`. loss_acc: how much worse the measured
    winner is than the printed one, by the printed numbers.
    """
    whole = [p for p in pairs if p.group != CONTROL_GROUP and PARTLY_POISONED not in p.group]
    for (setting, group), members in _by(whole, lambda p: (p.setting, p.group)).items():
        where = {"setting": setting, "group": group}
        attacks = [p for p in members if contest.is_attack(p.attack)]
        for defense, own in _by(attacks, lambda p: p.defense).items():
            if len(own) > 1:
                yield {**where, **_winner("strongest attack", defense, own, -1.0)}
        defenses = [p for p in members if contest.is_defense(p.defense)]
        for attack, own in _by(defenses, lambda p: p.attack).items():
            if len(own) > 1:
                yield {**where, **_winner("best defense", attack, own, 1.0)}


def _winner(question: str, of: str, pairs: Sequence[Agreeing], sign: float) -> EvaluationRow:
    def name(pair: Agreeing) -> str:
        return pair.defense if question == "best defense" else pair.attack

    measured = max(pairs, key=lambda pair: sign * pair.measured)
    printed = max(pairs, key=lambda pair: sign * pair.printed)
    return {
        "question": question,
        "of": of,
        "among": len(pairs),
        "by_measured": name(measured),
        "by_printed": name(printed),
        "same": _same(measured, printed),
        "loss_acc": sign * (printed.printed - measured.printed) + 0.0,
    }


def _same(one: Agreeing, other: Agreeing) -> Literal["yes", "tie", "no"]:
    """Whether two winners are one, or measured or printed numbers do not tell them apart."""
    if one is other:
        return "yes"
    spread = max(TIE_DIFFERENCE, one.cell.std or 0.0, other.cell.std or 0.0)
    near = abs(one.measured - other.measured) <= spread + 1e-9
    return "tie" if near or abs(one.printed - other.printed) <= TIE_DIFFERENCE + 1e-9 else "no"


def _by(pairs: Sequence[Agreeing], key: Callable[[Agreeing], Any]) -> dict[Any, list[Agreeing]]:
    """Pairs by a key, in the order in which the keys first occur."""
    groups: dict[Any, list[Agreeing]] = defaultdict(list)
    for pair in pairs:
        groups[key(pair)].append(pair)
    return dict(groups)
