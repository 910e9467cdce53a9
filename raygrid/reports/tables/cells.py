"""What stands in a cell: mean over seeds, spread, how many of how many, and what is published."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from raygrid.core.spec import Part, TrialSpec, parse_chain
from raygrid.literature import lookup
from raygrid.literature.lookup import Finding
from raygrid.literature.printed import Printed, flat
from raygrid.reports.statistics import average, confidence, paper_error, spread, wilson
from raygrid.reports.tables.trial_lines import AXES, DETECTION_FIELDS, TARGET_FIELDS, TrialLine
from raygrid.storage.results import precedence
from raygrid.trials.result import DATA_MARKS, beside_data

CellKey = tuple[Any, ...]
"""The values of AXES, in that order."""

PUBLISHED_NOISE = {"final_acc": 0.06, "peak_acc": 0.12, "target_success": 0.09, "psnr": 1.0}
"""Differences to a paper that are always taken for noise; a peak is a maximum over noisy epochs."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table. Accuracies are fractions.

    value: mean over seeds of `metric`; std: sample standard deviation (ddof=1), None below two
        seeds; low, high: 95 % interval (`interval` says which: t over seeds, Wilson over images).
        Success on a target is yes or no for each seed, a set-up: std is the benchmark's standard
        error, the interval Wilson's over set-ups.
    values: by seed. n of `of` seeds have one; the others failed, diverged, stopped early or
        are missing. `of` counts the seeds that occur anywhere in the same panel.
    printed: number of a paper.
    facts: `selection`, as in the frame; `winners`: how many seeds each winner won, where a derived
        defense chose among several; `left_out`: how many trials are not in it, as they are of other
        data or versions than its newest; further what only one kind of table has.
    """

    axes: Mapping[str, Any]
    metric: str
    value: float | None = None
    final_acc: float | None = None
    peak_acc: float | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None
    interval: str = ""
    values: Mapping[int, float] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    n: int = 0
    of: int = 0
    failed: int = 0
    diverged: int = 0
    stopped: int = 0
    why: str | None = None
    printed: Printed | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """The cell as one flat JSON object."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        axes, facts = plain.pop("axes"), plain.pop("facts")
        plain.pop("printed")
        plain["seeds"] = list(self.seeds)
        plain["values"] = {str(seed): value for seed, value in self.values.items()}
        return {**axes, **plain, **flat(self.printed), **facts}

    def spec(self) -> TrialSpec:
        """The trial of the cell's axes, of seed 0; no poison is that of a whole clean set."""
        axes = {name: str(value) for name, value in self.axes.items()}
        return TrialSpec(
            dataset=Part.parse(axes["dataset"]),
            attack=Part.parse(axes["attack"]),
            defense=parse_chain(axes["defense"]),
            architecture=Part.parse(axes["architecture"]),
            learner=Part.parse(axes["learner"]),
            protocol=Part.parse(axes["protocol"]),
            poison_ratio=float(axes["poison_ratio"]) or 1.0,
        )


def cells_of(lines: Iterable[TrialLine], metric: str) -> dict[CellKey, Cell]:
    """All cells of trials by their axes; a trial that was run twice counts once, its last line.

    A cell is of one version of each method and of the same data: those of its newest trial that
    came to an end.
    """
    lines = list(lines)
    newest, others = _newest(lines), defaultdict[CellKey, set[Any]](set)
    last: dict[CellKey, TrialLine] = {}
    for line in lines:
        key = tuple(line[axis] for axis in (*AXES, "seed"))
        if line["made_with"] not in ("", newest.get(key[:-1])):
            others[key[:-1]].add((line["seed"], line["made_with"]))
            continue
        last.pop(key, None)  # it takes the place of its last line, also in the order
        last[key] = line
    groups: dict[CellKey, list[TrialLine]] = defaultdict(list)
    for key, line in last.items():
        groups[key[:-1]].append(line)
    return {key: _cell(key, group, metric, len(others[key])) for key, group in groups.items()}


def _newest(lines: Iterable[TrialLine]) -> dict[CellKey, str]:
    """By axes what the newest trial that came to an end was made with, of those that say it.

    One that failed since with another version takes away nothing; see `precedence`.
    """
    said = sorted((line for line in lines if line["made_with"]), key=precedence)
    return {tuple(line[axis] for axis in AXES): line["made_with"] for line in said}


def _cell(key: CellKey, trials: list[TrialLine], metric: str, left_out: int) -> Cell:
    status = [trial["status"] for trial in trials]
    done = [trial for trial in trials if trial["status"] == "done"]
    final = _known(done, "final_acc")
    troubled = [trial for trial in trials if trial["status"] != "done"]
    whys = (trial["why"] for trial in troubled + done)
    facts: dict[str, Any] = {"selection": trials[0]["selection"]}
    facts |= {name: trial[name] for trial in trials for name in DATA_MARKS if trial[name]}
    if left_out:
        facts["left_out"] = left_out
    if won := [name for trial in done if isinstance(name := trial["winner"], str)]:
        facts["winners"] = dict(Counter(won).most_common())
    cell = Cell(
        axes=dict(zip(AXES, key, strict=True)),
        metric=metric,
        final_acc=average(list(final.values())),
        peak_acc=average(list(_known(done, "peak_acc").values())),
        seeds=tuple(sorted({trial["seed"] for trial in trials})),
        failed=status.count("failed"),
        diverged=status.count("diverged"),
        stopped=sum(bool(t["stopped_early"]) and t["seed"] not in final for t in done),
        why=next((why for why in whys if isinstance(why, str)), None),
        facts=facts,
    )
    never = sum(trial["never"] for trial in done) if metric == "epochs_to_half" else 0
    if never:
        cell = with_facts(cell, never=never)
    values = _known(done, metric)
    counts = {} if metric in DETECTION_FIELDS else _known(done, "n_test")
    images = next(iter(counts.values()), 0)
    found = lookup.find(trials[0]["spec"], metric)
    return with_published(with_values(cell, values, int(images)), found)


def _known(trials: Iterable[TrialLine], field: str) -> dict[int, float]:
    """The values that are there, by seed; a frame's lines have NaN for those that are not."""
    values = ((trial["seed"], trial[field]) for trial in trials)
    return {seed: float(v) for seed, v in values if v is not None and not math.isnan(v)}


def with_values(cell: Cell, values: Mapping[int, float], images: int = 0) -> Cell:
    """The cell with mean, spread and interval of one value a seed.

    images: on how many test images each value was measured, for the interval of a single seed.
    """
    numbers = [values[seed] for seed in sorted(values)]
    std, mean = spread(numbers), average(numbers)
    share = cell.metric.endswith("_acc") or cell.metric.startswith("detection_")
    low, high, interval = confidence(numbers, images if cell.metric.endswith("_acc") else 0)
    if share and low is not None and high is not None:
        low, high = max(0.0, low), min(1.0, high)  # Student's t knows no end, an accuracy does
    if cell.metric in TARGET_FIELDS and mean is not None:
        std = paper_error(mean, len(numbers))
        low, high, interval = *wilson(mean, len(numbers)), "wilson"
    return dataclasses.replace(
        cell,
        value=mean,
        std=std,
        values=dict(sorted(values.items())),
        n=len(numbers),
        low=low,
        high=high,
        interval=interval,
    )


def with_facts(cell: Cell, **facts: Any) -> Cell:
    """The cell with more facts, or others of these names."""
    return dataclasses.replace(cell, facts={**cell.facts, **facts})


def with_published(cell: Cell, found: Finding | None) -> Cell:
    """The cell with the number of a paper beside its own, and whether they differ.

    What the cell's facts say of its data sets a number apart too, whoever looked it up.
    """
    if found is None:
        return cell
    printed = beside_data(found.printed(), cell.facts)
    judged = printed.own and not printed.suspect
    differs = judged and beyond_noise(cell, printed.value, printed.std)
    return dataclasses.replace(cell, printed=dataclasses.replace(printed, differs=differs))


def beyond_noise(cell: Cell, value: float, std: float | None) -> bool:
    """Whether a mean is further from a published value than max(band, 3 sigma).

    The band is 6 points (12 for a peak); sigma joins the spread over our seeds and the paper's.
    """
    if cell.value is None:
        return False
    sigma = math.hypot(cell.std or 0.0, std or 0.0)
    return abs(cell.value - value) > max(PUBLISHED_NOISE.get(cell.metric, 0.06), 3 * sigma) + 1e-9
