"""Success on the target: attacks against victims, each beside its clean control."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from raygrid.attacks import ATTACKS
from raygrid.core.lazy import np
from raygrid.core.spec import Part, TrialSpec
from raygrid.literature import lookup, reference, toxic
from raygrid.reports.statistics import average, mcnemar, paper_error
from raygrid.reports.tables.cells import Cell, with_facts, with_published

SUCCESS_METRICS = ("target_success", "target_clbd_success", "target_htbd_success")
SINGLE_VICTIM_FACTS = ("gained", "lost", "p", "winners", "control", "excess", "left_out")
"""Facts of a victim that say nothing of a mean over several."""
Placed = list[tuple[str, str, Cell]]
"""Attack, victim, cell."""


def cells_of_success(cells: list[Cell]) -> Placed:
    """Cells with the benchmark's error, Wilson's interval, the control and the test of pairs.

    The control of a backdoor is the clean victim's answer to the target with that trigger. Means
    over victims that the benchmark prints come as victims of their own.
    """
    by = {(c.axes["attack"], c.axes["architecture"], c.metric): c for c in cells}
    shown = {k: c for k, c in by.items() if k[2] == SUCCESS_METRICS[0] and c.value is not None}
    out: Placed = []
    for (attack, victim, _), cell in shown.items():
        control = by.get(("clean", victim, _control_metric(attack)))
        facts = _against(cell.values, control if attack != "clean" else None)
        out.append((attack, victim, with_facts(cell, **facts)))
    return [*out, *_means(out)]


def _control_metric(attack: str) -> str:
    """The clean victim's answer that an attack is held against."""
    name = Part.parse(attack).name
    pasted = ATTACKS[name].pasted if name in ATTACKS else ""
    return f"target_{pasted}_success" if pasted else SUCCESS_METRICS[0]


def _against(values: Mapping[int, float], control: Cell | None) -> dict[str, Any]:
    """Rate of the control, excess success and McNemar's p over the set-ups that both have."""
    if control is None or not (both := values.keys() & control.values.keys()):
        return {}
    rate = sum(control.values[s] for s in both) / len(both)
    gained, lost, p = mcnemar(values, control.values)
    excess = sum(values[s] for s in both) / len(both) - rate
    return {"control": rate, "excess": excess, "gained": gained, "lost": lost, "p": p}


@cache
def _printed_means() -> tuple[Part, ...]:
    rows = reference.printed_rows()
    cells = (r["cell"] for r in rows if r["paper"] == "just_how_toxic" and r["cell"])
    parts = (TrialSpec.parse(text).architecture for text in cells)
    return tuple(dict.fromkeys(part for part in parts if part.name == toxic.MEAN_OF_VICTIMS))


def _means(single: Placed) -> Iterator[tuple[str, str, Cell]]:
    """Means over victims, where all of them are there."""
    attacks = dict.fromkeys(attack for attack, _, _ in single)
    by = {(attack, victim): cell for attack, victim, cell in single}
    for attack, part in itertools.product(attacks, _printed_means()):
        cells = [by.get((attack, str(member))) for member in toxic.members(part)]
        found = [cell for cell in cells if cell is not None]
        if len(found) == len(cells):
            yield attack, str(part), _mean(found, part)


def _mean(cells: list[Cell], part: Part) -> Cell:
    """One value a set-up, so that victims of one poison are never taken for independent."""
    shared = set.intersection(*(set(cell.values) for cell in cells))
    values = {s: sum(cell.values[s] for cell in cells) / len(cells) for s in sorted(shared)}
    bare = _without_success(cells, part)
    if not values:
        return bare
    mean = sum(values.values()) / len(values)
    low, high = bootstrap(list(values.values()))
    cell = dataclasses.replace(
        bare,
        value=mean,
        values=values,
        n=len(values),
        std=paper_error(mean, len(values) * len(cells)),
        low=low,
        high=high,
        interval="bootstrap over set-ups",
        facts={**bare.facts, **_mean_of_controls(cells, mean)},
    )
    return with_published(cell, lookup.find(cell.spec(), SUCCESS_METRICS[0]))


def _without_success(cells: list[Cell], part: Part) -> Cell:
    """The cell of a mean over these with all that they say of it but their success."""
    first = cells[0]
    return Cell(
        axes={**first.axes, "architecture": str(part)},
        metric=first.metric,
        final_acc=_of_all([cell.final_acc for cell in cells]),
        peak_acc=_of_all([cell.peak_acc for cell in cells]),
        seeds=tuple(sorted({seed for cell in cells for seed in cell.seeds})),
        of=first.of,
        failed=sum(cell.failed for cell in cells),
        diverged=sum(cell.diverged for cell in cells),
        stopped=sum(cell.stopped for cell in cells),
        why=next((cell.why for cell in cells if cell.why), None),
        facts={k: v for one in cells for k, v in one.facts.items() if k not in SINGLE_VICTIM_FACTS},
    )


def _of_all(values: list[float | None]) -> float | None:
    """The mean of values that are all there, else None."""
    there = [value for value in values if value is not None]
    return average(there) if len(there) == len(values) else None


def _mean_of_controls(cells: list[Cell], mean: float) -> dict[str, Any]:
    rates = [cell.facts["control"] for cell in cells if "control" in cell.facts]
    if len(rates) < len(cells):
        return {}
    control = sum(rates) / len(rates)
    return {"control": control, "excess": mean - control}


def bootstrap(values: list[float]) -> tuple[float, float]:
    """95 % percentile interval of the mean over set-ups; always the same for the same values."""
    rng = np.random.default_rng(0)
    means = rng.choice(np.array(values), (2000, len(values))).mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
