"""From the rows of contradictions to a table and a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import mean, stdev
from typing import Any

from scales import Case, cases, trial, undefended
from settings import Contradiction, Setting

from raygrid.core.spec import TrialSpec
from raygrid.literature.lookup import CONTRADICTION, PublishedValue, find
from raygrid.reports.tables.cell_text import number

APART = 100 * CONTRADICTION
"""Points from which numbers contradict each other, printed or measured."""
RULE = (
    f"Two settings differ if their means are more than {APART:.0f} points and more than twice the "
    "larger of their standard deviations over seeds apart; an attack works if it lies as far below "
    f"clean. Judged are the pairs that are printed at least {APART:.0f} points apart and both work "
    "here; where there are none, the pair that is furthest apart here, one of which has to work. "
    "For the further defenses both have to work without them."
)


@dataclass(frozen=True)
class Side:
    """One setting in one case: percent, by seed where there is a row.

    works: whether it takes enough from clean accuracy under the first defense.
    """

    name: str
    values: Sequence[float]
    clean: Sequence[float]
    printed: PublishedValue | None = None
    works: bool = True

    @property
    def paper(self) -> float | None:
        """What is printed, in percent."""
        return None if self.printed is None else 100 * self.printed.value


def noise(*samples: Sequence[float]) -> float:
    """By how much means of these samples have to differ."""
    return max([APART, *(2 * stdev(values) for values in samples if len(values) > 1)])


def works(side: Side) -> bool:
    """Whether the attack takes something here; where nothing is attacked there is no question."""
    if not side.values or not side.clean:
        return False
    return mean(side.clean) - mean(side.values) > noise(side.values, side.clean)


def sides(
    claim: Contradiction, case: Case, scale: str, seeds: Sequence[int], rows: Mapping[str, Any]
) -> list[Side]:
    """The settings of a case with what was measured. rows: by spec."""

    def values(setting: Setting, where: Case) -> list[float]:
        named = [trial(claim, setting, where, scale, seed) for seed in seeds]
        found = [rows[spec][claim.metric] for spec in named if spec in rows]
        return [100 * value for value in found if value is not None]

    def side(setting: Setting, where: Case) -> Side:
        clean = values(setting, where._replace(attack="clean"))
        return Side(setting.name, values(setting, where), clean)

    made = []
    for setting in claim.settings:
        here, first = side(setting, case), side(setting, undefended(claim, case))
        known = case.attack == "clean" or works(first)
        figure = printed(setting, case, claim.metric)
        made.append(Side(here.name, here.values, here.clean, figure, known))
    return made


def printed(setting: Setting, case: Case, metric: str) -> PublishedValue | None:
    """What the paper of a setting prints; APBench's early stopping is a final accuracy."""
    if not setting.printed:
        return None
    spec = TrialSpec.parse(setting.printed.format(**case._asdict()) + "/0")
    for measure in (metric, "final_acc"):
        found = find(spec, measure)
        if found is not None and found.best.protocol == str(spec.protocol):
            return found.best
    return None


def verdict(compared: Sequence[Side], first: bool = True) -> str:
    """What the rows say, by `RULE`. first: whether this is the first defense."""
    if any(not side.values for side in compared):
        return "not measured"
    if any(len(side.values) < 2 for side in compared):
        means = [mean(side.values) for side in compared]
        return f"undecided: one seed has no spread; {max(means) - min(means):.1f} points apart"
    every = list(combinations(compared, 2))
    both = [pair for pair in every if all(side.works for side in pair)]
    if known := list(filter(_contradicts, both)):
        return "; ".join(_held_against(*pair) for pair in known)
    pairs = [pair for pair in every if any(side.works for side in pair)] if first else both
    if not pairs:
        return f"undecided: {'no setting works' if first else 'fewer than two settings work'} here"
    lost = "undecided as printed, not both work here; " if any(map(_contradicts, every)) else ""
    return lost + _widest(pairs)


def _contradicts(pair: tuple[Side, Side]) -> bool:
    """Whether the printed numbers are apart, as far as there are two."""
    return abs(_printed_gap(*pair) or 0.0) >= APART - 1e-9


def _printed_gap(one: Side, other: Side) -> float | None:
    if one.paper is None or other.paper is None:
        return None
    return other.paper - one.paper


def _held_against(one: Side, other: Side) -> str:
    gap = _printed_gap(one, other)
    assert gap is not None
    here = mean(other.values) - mean(one.values)
    said = f"{one.name} to {other.name} {gap:+.1f} printed, {here:+.1f} here"
    if abs(here) <= noise(one.values, other.values):
        return f"{said}: no such difference"
    return f"{said}: {'the setting does it' if here * gap > 0 else 'the other way round'}"


def _widest(pairs: Sequence[tuple[Side, Side]]) -> str:
    one, other = max(pairs, key=lambda pair: abs(mean(pair[1].values) - mean(pair[0].values)))
    here = mean(other.values) - mean(one.values)
    bar = noise(one.values, other.values)
    if abs(here) <= bar:
        return f"no setting differs: {abs(here):.1f} points at most, {bar:.1f} would be needed"
    return f"the setting moves it: {one.name} to {other.name} {here:+.1f}"


def table(
    name: str, claim: Contradiction, scale: str, seeds: Sequence[int], rows: Mapping[str, Any]
) -> Iterator[str]:
    """A claim as lines of Markdown."""
    what = "peak" if claim.metric == "peak_acc" else "final"
    yield f"## {name}"
    yield ""
    yield f"{claim.says[0].upper()}{claim.says[1:]}. Test accuracy ({what}) in percent."
    yield ""
    yield "| attack | defense | learner | setting | printed | here | clean |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    said = []
    for case in cases(claim):
        compared = sides(claim, case, scale, seeds, rows)
        if claim.defended:  # all settings are the same there, and what is printed is of others
            bare = undefended(claim, case)
            shared = sides(claim, bare, scale, seeds, rows)[0]
            yield _row(bare, replace(shared, name="any", printed=None))
        yield from (_row(case, side) for side in compared)
        said.append(f"- {', '.join(case)}: {verdict(compared, case.defense == claim.defenses[0])}.")
    yield ""
    yield from said
    yield ""


def _row(case: Case, side: Side) -> str:
    cells = (side.name, _cited(side), summed(side.values), summed(side.clean))
    return f"| {' | '.join((*case, *cells))} |"


def _cited(side: Side) -> str:
    return "–" if side.printed is None else f"{side.paper:.2f} ({side.printed.cite()})"


def summed(values: Sequence[float]) -> str:
    """Mean ± standard deviation (number of seeds)."""
    if not values:
        return "–"
    spread = f" ± {_points(stdev(values))}" if len(values) > 1 else ""
    return f"{_points(mean(values))}{spread} ({len(values)})"


def _points(percent: float) -> str:
    """As tables round it, who have fractions: 69.35 may be 69.3499999 by now."""
    return number(round(percent / 100, 12), "final_acc", 1)
