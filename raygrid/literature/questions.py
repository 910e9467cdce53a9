"""Printed numbers that no row of a trial holds: what is asked of finished trials, and of which."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from raygrid.core.spec import Part, TrialSpec
from raygrid.literature.made import made_by
from raygrid.literature.names import METRIC_NAMES, PAPER_PROTOCOLS, axes_of

AVERAGED_VICTIMS = ("resnet18", "vgg19", "mobilenet", "googlenet")
"""Whose mean Sandoval-Segura et al. print, table 2."""
_CLEAN_EPOCHS = 200  # of these victims, section 4.2

ReferenceRow = dict[str, Any]
"""As `reference.printed_rows` has them."""


@dataclass(frozen=True)
class Question:
    """What is asked of finished trials.

    metrics: of the reference, that it answers. down, across: columns of the reference that are
    rows and columns of the printed table. about: a row's trials, given all rows of its table.
    keep: what these have to leave. seeds: the fewest with which there is an answer. mean: whether
    the answer is a mean over these, so that a part of them has one too.
    beside: metrics that no paper prints, of the rows for which `goes` holds.
    """

    metrics: tuple[str, ...]
    down: str
    across: str
    about: Callable[[ReferenceRow, list[ReferenceRow]], tuple[TrialSpec, ...]]
    keep: tuple[str, ...] = ()
    seeds: int = 1
    mean: bool = False
    beside: tuple[str, ...] = ()
    goes: Callable[[ReferenceRow], bool] = lambda row: False


@dataclass(frozen=True)
class PrintedQuestion:
    """A printed number with its place in the table and the trials (as printed) that answer it.

    value, std: a fraction, dB or minutes; value None: what stands beside and is not printed.
    remarks: as in a row. on: what it was measured on, where that matters.
    """

    question: str
    paper: str
    table: str
    dataset: str
    metric: str
    row: str
    column: str
    about: tuple[TrialSpec, ...]
    value: float | None
    std: float | None
    suspect: bool
    remarks: tuple[str, ...]
    on: str


def _itself(row: ReferenceRow, table: list[ReferenceRow]) -> tuple[TrialSpec, ...]:
    """The trial of the row."""
    return (made_by(row["paper"], axes_of(row)),)


def _poison_and_victims(row: ReferenceRow, table: list[ReferenceRow]) -> tuple[TrialSpec, ...]:
    """A trial with the poison, then those of victims that were trained on clean images."""
    poison = _itself({**row, "architecture": AVERAGED_VICTIMS[0]}, table)[0]
    names = AVERAGED_VICTIMS if row["architecture"] == "mean" else (row["architecture"],)
    protocol = Part.of(PAPER_PROTOCOLS[row["paper"]], epochs=_CLEAN_EPOCHS)
    clean = poison.replace(attack=Part("clean"), protocol=protocol)
    return poison, *(clean.replace(architecture=Part(name)) for name in names)


def _same_defense(row: ReferenceRow, table: list[ReferenceRow]) -> tuple[TrialSpec, ...]:
    """All trials of the table with the row's defense, whatever the poison."""
    same = [each for each in table if each["defense"] == row["defense"]]
    return tuple(_itself(each, table)[0] for each in same if _is_trial(each))


def _is_trial(row: ReferenceRow) -> bool:
    return row["metric"] in METRIC_NAMES and row["attack"] not in ("", "mean")


def _any_poison(row: ReferenceRow, table: list[ReferenceRow]) -> tuple[TrialSpec, ...]:
    """A trial with the row's defense; what the paper leaves open is its first and main setting."""
    usual = {"attack": "em", "architecture": "resnet18", "poison_ratio": "1.0"}
    return _itself({**row, **usual}, table)


def _is_psnr(row: ReferenceRow) -> bool:
    return row["metric"] == "psnr"


def _is_disentangled(row: ReferenceRow) -> bool:
    """Whether a trial's poison is what a D-VAE found in another one."""
    found = row["attack"].endswith(("_dvae_recon", "_dvae_increase"))
    return found and row["metric"] == "test_acc"


QUESTIONS: Mapping[str, Question] = {
    "robustness": Question(
        ("pgd_blackbox_acc", "pgd_whitebox_acc"), "attack", "defense", _itself, ("weights",), 2
    ),
    "transferability": Question(
        ("attack_transfer_rate",), "attack", "architecture", _poison_and_victims, ("weights",)
    ),
    "sets": Question(
        ("clean_train_acc", "poisoned_train_acc"), "attack", "metric", _itself, ("weights",)
    ),
    "fidelity": Question(
        ("psnr",),
        *("metric", "defense", _same_defense),
        mean=True,
        beside=("psnr_pooled",),
        goes=_is_psnr,
    ),
    "norms": Question(
        (),
        *("attack", "metric", _itself),
        beside=("base_l2", "l2", "linf", "linf_max"),
        goes=_is_disentangled,
    ),
    "cost": Question(
        ("minutes_dvae_training", "minutes_inference", "minutes_classifier_training", "minutes"),
        "defense",
        "metric",
        _any_poison,
    ),
}
"""By the name that `raygrid evaluate` has for it."""


def questions_of(rows: list[ReferenceRow]) -> Iterator[PrintedQuestion]:
    """What the rows of one table ask beyond the rows of trials, in their order."""
    by = {metric: name for name, each in QUESTIONS.items() for metric in each.metrics}
    for row in rows:
        if row["metric"] in by:
            yield _printed(by[row["metric"]], row, rows)
    unprinted = {"value": "", "std": "", "remarks": (), "suspect": False}
    for row in rows:
        for name, each in QUESTIONS.items():
            for metric in each.beside if each.goes(row) else ():
                yield _printed(name, {**row, **unprinted, "metric": metric}, rows)


def _printed(name: str, row: ReferenceRow, table: list[ReferenceRow]) -> PrintedQuestion:
    question = QUESTIONS[name]
    scale = 100 if row["unit"] == "percent" else 1
    remarks, on = row["remarks"], ""
    if name == "cost":
        *remarks, on = remarks
    facts: dict[str, Any] = {key: row[key] for key in ("paper", "table", "dataset", "metric")}
    return PrintedQuestion(
        question=name,
        row=_label(row, question.down),
        column=_label(row, question.across),
        about=question.about(row, table),
        value=round(float(row["value"]) / scale, 6) if row["value"] else None,
        std=float(row["std"]) / scale if row["std"] else None,
        suspect=row["suspect"],
        remarks=tuple(remarks),
        on=on,
        **facts,
    )


def _label(row: ReferenceRow, column: str) -> str:
    """What a column says of a row; of an attack that starts from a share of images that too."""
    share = row["poison_ratio"] if column == "attack" else ""
    return row[column] + (f", {100 * float(share):g} %" if share not in ("", "1.0") else "")
