"""What finished trials say to the questions of a printed table, published beside measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raygrid.attacks.common.disentangled import Disentangled
from raygrid.core.errors import DataError, SpecError
from raygrid.core.spec import TrialSpec
from raygrid.datasets import DATASETS
from raygrid.literature.lookup import Finding, PublishedValue
from raygrid.literature.printed import Apart
from raygrid.literature.questions import QUESTIONS, PrintedQuestion
from raygrid.reports.analysis.fidelity import fidelity_of_purified, norms_of_disentangled
from raygrid.reports.analysis.questions import accuracy_on_sets, robustness, transferability
from raygrid.reports.analysis.records import Records
from raygrid.reports.analysis.summary import costs
from raygrid.reports.tables.cells import Cell, with_published, with_values
from raygrid.reports.tables.layout import Panel, Table
from raygrid.reproduce.papers import Scale
from raygrid.reproduce.scales import lacking, scaled
from raygrid.trials.result import data_facts
from raygrid.trials.run import data_marks

Found = Mapping[int, Mapping[str, float]]
"""By seed: what the metrics of a question come to."""
DataFacts = Mapping[str, str]
"""What sets the data of trials apart from the official ones, by the names of a cell's facts."""


@dataclass
class FinishedTrials:
    """What trials left, and their rows by spec."""

    records: Records
    rows: Mapping[str, Mapping[str, Any]]
    _rates: dict[tuple[str, str, int], float] = field(default_factory=dict)

    def cost(self, spec: TrialSpec) -> Mapping[str, Any]:
        """What `reports.analysis.summary.costs` says of a trial.

        Raises DataError if the trial is not there or did not end well.
        """
        name = str(self.records.trial(str(spec)).spec)
        row = self.rows.get(name)
        if row is None or row["status"] != "done":
            raise DataError(f"there is no result of {name}")
        return costs([row], self.records.store)[0]

    def data(self, about: Sequence[TrialSpec]) -> DataFacts:
        catalog = self.records.catalog
        made = [catalog.artifact(DATASETS.make(spec.dataset), 0.0).dataset for spec in about]
        return data_facts([mark for dataset in made for mark in data_marks(dataset)])

    def rate(self, poison: TrialSpec, victim: TrialSpec, seed: int) -> float:
        """The share of a trial's poison that another one's network gets wrong; looked at once."""
        text = f"{poison.dataset}/{poison.attack}@{poison.poison_ratio!r}"
        key = text, str(victim), seed
        if key not in self._rates:
            poisoned = self.records.poisoned(text, seed)
            network = self.records.victim(str(victim.replace(seed=seed)))
            self._rates[key] = transferability([poisoned], [network])[0]["rate"]
        return self._rates[key]


def _robustness(
    evidence: FinishedTrials, about: Sequence[TrialSpec], seeds: Sequence[int]
) -> Found:
    victims = [evidence.records.victim(str(about[0].replace(seed=seed))) for seed in seeds]
    columns = {"pgd_whitebox_acc": "white_acc", "pgd_blackbox_acc": "black_acc"}
    rows = zip(seeds, robustness(victims), strict=True)
    return {seed: {name: row[of] for name, of in columns.items()} for seed, row in rows}


def _transferability(
    evidence: FinishedTrials, about: Sequence[TrialSpec], seeds: Sequence[int]
) -> Found:
    poison, *victims = about
    found = {}
    for seed in seeds:
        rates = [evidence.rate(poison, victim, seed) for victim in victims]
        found[seed] = {"attack_transfer_rate": math.fsum(rates) / len(rates)}
    return found


def _sets(evidence: FinishedTrials, about: Sequence[TrialSpec], seeds: Sequence[int]) -> Found:
    """Of a poison that was made from another one: the accuracy on that one too."""
    found = {}
    for seed in seeds:
        spec = str(about[0].replace(seed=seed))
        attack = evidence.records.trial(spec).attack
        base = attack.attack if isinstance(attack, Disentangled) else attack
        original = evidence.records.poisoned(f"{about[0].dataset}/{base.part()}", seed).images
        rows = accuracy_on_sets(evidence.records, spec, {"original": original})
        acc = {row["set"]: row["acc"] for row in rows}
        found[seed] = {
            "clean_train_acc": acc["clean_train"],
            "poisoned_train_acc": acc["original"],
        }
    return found


def _fidelity(evidence: FinishedTrials, about: Sequence[TrialSpec], seeds: Sequence[int]) -> Found:
    """The mean over the poisons that the defense was put on."""
    found = {}
    for seed in seeds:
        each = [psnr(evidence.records, spec.replace(seed=seed)) for spec in about]
        found[seed] = {
            name: math.fsum(one[name] for one in each) / len(each) for name in PSNR_MEASURES
        }
    return found


PSNR_MEASURES = ("psnr", "psnr_pooled")


def psnr(records: Records, spec: TrialSpec) -> dict[str, float]:
    """dB: what the purifiers of a trial left of the images that they were given.

    psnr: mean over images; psnr_pooled: of their mean square error, as D-VAE's code prints it.
    """
    given, _ = fidelity_of_purified(records, str(spec))
    if "psnr" not in given:
        raise DataError(f"the purifiers of {spec} changed no image")
    return {name: float(given[name]) for name in PSNR_MEASURES}


def _norms(evidence: FinishedTrials, about: Sequence[TrialSpec], seeds: Sequence[int]) -> Found:
    """Of the perturbations that a D-VAE found in a poison, and of that one."""
    spec = about[0]
    text = f"{spec.dataset}/{spec.attack}@{spec.poison_ratio!r}"
    return {seed: norms_of_disentangled(evidence.records, text, seed) for seed in seeds}


def _cost(evidence: FinishedTrials, about: Sequence[TrialSpec], seeds: Sequence[int]) -> Found:
    found = {}
    for seed in seeds:
        row = evidence.cost(about[0].replace(seed=seed))
        seconds = {
            "minutes_dvae_training": row["fit_s"],
            "minutes_inference": row["pass_s"],
            "minutes_classifier_training": row["training_s"],
            "minutes": row["training_s"] + (row["purified_s"] or 0.0),
        }
        found[seed] = {name: s / 60 for name, s in seconds.items() if s is not None}
    return found


QUESTION_ANSWERS: Mapping[
    str, Callable[[FinishedTrials, Sequence[TrialSpec], Sequence[int]], Found]
] = {
    "robustness": _robustness,
    "transferability": _transferability,
    "sets": _sets,
    "fidelity": _fidelity,
    "norms": _norms,
    "cost": _cost,
}


def answered(
    printed: Iterable[PrintedQuestion],
    evidence: FinishedTrials | None,
    scale: Scale,
    seeds: Sequence[int],
) -> list[Table]:
    """A table for each question, its panels as printed; what has no answer says why.

    evidence: None where nothing was run. scale: of the trials. Numbers of other scales, or of
    another machine where that matters, stand beside without being judged.
    """
    cells: dict[str, list[tuple[PrintedQuestion, Cell]]] = {}
    known: dict[tuple[str, Sequence[TrialSpec]], tuple[Found | str, DataFacts]] = {}
    for each in printed:
        about = _about(each, scale)
        key = each.question, about
        if key not in known:
            known[key] = _ask(each.question, evidence, about, seeds)
        cell = _cell(each, about, *known[key], seeds)
        cells.setdefault(each.question, []).append((each, cell))
    return [_table(question, placed) for question, placed in cells.items()]


def _about(printed: PrintedQuestion, scale: Scale) -> tuple[TrialSpec, ...]:
    """The trials at a scale; for a mean those that can be made here."""
    if not QUESTIONS[printed.question].mean:
        return tuple(scaled(spec, scale) for spec in printed.about)
    there = (spec for spec in printed.about if not lacking(spec, scale))
    return tuple(dict.fromkeys(scaled(spec, scale) for spec in there))


def _ask(
    question: str, evidence: FinishedTrials | None, about: Sequence[TrialSpec], seeds: Sequence[int]
) -> tuple[Found | str, DataFacts]:
    """By seed, or why there is no answer; nothing where nothing was run. Beside it the data."""
    if evidence is None:
        return {}, {}
    try:
        return QUESTION_ANSWERS[question](evidence, about, seeds), evidence.data(about)
    except (DataError, SpecError) as error:
        return str(error), {}


def _cell(
    printed: PrintedQuestion,
    about: Sequence[TrialSpec],
    found: Found | str,
    data: DataFacts,
    seeds: Sequence[int],
) -> Cell:
    first = about[-1]
    axes = {"dataset": str(first.dataset), "protocol": str(first.protocol)}
    question = QUESTIONS[printed.question]
    axes |= {question.down: printed.row, question.across: printed.column}
    facts = {**data, "trials": " ".join(map(str, about))}
    why = found if isinstance(found, str) else None
    cell = Cell(axes, printed.metric, seeds=tuple(seeds), of=len(seeds), why=why, facts=facts)
    if not isinstance(found, str):
        values = {
            s: by[printed.metric] for s, by in found.items() if by.get(printed.metric) is not None
        }
        cell = with_values(cell, values)
    return with_published(cell, _finding(printed, about))


def _finding(printed: PrintedQuestion, about: Sequence[TrialSpec]) -> Finding | None:
    """The printed number; apart: the printed dataset for a stand-in, the machine for a cost."""
    if printed.value is None:
        return None
    best = PublishedValue(
        paper=printed.paper,
        made=("", "", "", ""),
        protocol=str(printed.about[0].protocol),
        tables=(printed.table,),
        value=printed.value,
        std=printed.std,
        suspect=printed.suspect,
        remarks=printed.remarks,
    )
    if printed.on or set(about) <= set(printed.about):
        return Finding(best, Apart(settings=printed.on), ())
    return Finding(best, Apart(printed.paper, data=printed.dataset), ())


def _table(name: str, placed: Sequence[tuple[PrintedQuestion, Cell]]) -> Table:
    question = QUESTIONS[name]
    groups: dict[tuple[str, str, str], list[tuple[PrintedQuestion, Cell]]] = {}
    several = "metric" not in (question.down, question.across)
    for printed, cell in placed:
        group = str(cell.axes["dataset"]), printed.dataset, printed.metric if several else ""
        groups.setdefault(group, []).append((printed, cell))
    return Table(name, f"Asked of finished trials: {name}.", tuple(_panels(name, groups.values())))


def _panels(name: str, groups: Iterable[Sequence[tuple[PrintedQuestion, Cell]]]) -> Iterator[Panel]:
    question = QUESTIONS[name]
    sides = question.down, question.across
    for group in groups:
        printed, cell = group[0]
        cells = {(a.row, a.column): c for a, c in group}
        where = {"dataset": cell.axes["dataset"], "protocol": cell.axes["protocol"]}
        if printed.dataset != cell.axes["dataset"]:
            where["printed"] = f"for {printed.dataset}"
        yield Panel(
            where={**where, "measure": name if "metric" in sides else printed.metric},
            rows=tuple(dict.fromkeys(row for row, _ in cells)),
            columns=tuple(dict.fromkeys(column for _, column in cells)),
            cells=cells,
            down=question.down,
            across=question.across,
            metric=printed.metric if name != "cost" else question.metrics[-1],
            digits=1 if cell.axes["protocol"].startswith("quick") else 2,
        )
