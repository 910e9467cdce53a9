"""What a trial leaves: one row."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from raygrid.literature.printed import Printed

Status = Literal["done", "failed", "diverged"]
History = list[dict[str, float]]
HALF_LOSS = 0.5
"""The training loss that `epochs_to_half` counts the epochs to."""
COLLAPSED = "the features of the encoder have collapsed"

OTHER_DATA = "not the official data: "
"""Begins the mark of a result on data that are not those whose name they have."""
OTHER_FILES = "not the official files: "
"""Begins the mark of a result on lossy copies of the official data, as many as there are."""

DATA_MARKS = {"other_data": OTHER_DATA, "other_files": OTHER_FILES}
"""What marks say of a result's data, by name, and how the mark begins that says it."""


def data_facts(marks: Collection[str]) -> dict[str, str]:
    """What the marks of rows say of their data, by the names of DATA_MARKS; only what is said."""
    said = ((name, begin, mark) for name, begin in DATA_MARKS.items() for mark in marks)
    return {name: mark.removeprefix(begin) for name, begin, mark in said if mark.startswith(begin)}


def beside_data(printed: Printed, facts: Mapping[str, Any]) -> Printed:
    """A printed number beside a result on data of which these facts are known.

    Of a number that is apart already nobody need know that the files are lossy as well.
    """
    said = f"on other data than {other}" if (other := facts.get("other_data")) else ""
    if (files := facts.get("other_files")) and printed.own and not said:
        said = f"on other files than {files}"
    return dataclasses.replace(printed, apart=printed.apart.with_data(said))


def own_marks(marks: Iterable[str]) -> list[str]:
    """Marks without the one on files: plans and tables say once what all trials on them share."""
    return [mark for mark in marks if not mark.startswith(OTHER_FILES)]


def peak_of(history: History) -> tuple[float, int] | None:
    """The highest test accuracy and the first epoch with it, counted from 1; None without any."""
    tested = [(epoch["test_acc"], n) for n, epoch in enumerate(history, 1) if "test_acc" in epoch]
    return max(tested, key=lambda each: each[0], default=None)


@dataclass
class Result:
    """The row of one trial. Accuracies are fractions; None means not measured.

    history: by epoch; among others `epoch_seconds`, its training and its questions on the clock.
    peak_acc, peak_epoch: highest test accuracy over the epochs that ran, first epoch with it
        (counted from 1). For contrastive learners, whose epochs a kNN scores, it is knn_peak that
        holds the highest, and peak_acc is None.
    probe_peak, probe_final: test accuracy of the linear probe, the best over its epochs and the
        last; None for learners without one.
    final_acc: after the last planned epoch; for contrastive learners probe_peak or probe_final,
        whichever the protocol's source prints; None if the trial stopped early. last_acc: the same
        after whatever epoch was the last to run.
    selected_epoch: the epoch (counted from 1) that a derived defense selected; final_acc, last_acc
        and probes are then those after it. None: nothing was selected, they are of the last one.
    winner: the defenses of the trial that won, where a derived defense chose among several.
    seconds: on the clock, with epochs of earlier runs where it went on from a checkpoint.
    epochs_to_half: first epoch with train_loss < HALF_LOSS, None if there was none.
    utilization: part of the time in which the GPU computed while the trial trained, for all that
        shared it; gpu_share: the part of it that the trial was given, 0 on a CPU.
    detection: counts and rates of finding the poisoned images, for defenses that look for them.
    marks: what a reader has to know about the number, such as a surrogate that is too weak or
        features that have collapsed.
    probes: by name, how many of n images got the wanted label, and their mean loss.
    """

    spec: str
    key: str
    status: Status = "done"
    history: History = field(default_factory=list)
    probes: dict[str, dict[str, float]] = field(default_factory=dict)
    detection: dict[str, float] = field(default_factory=dict)
    peak_acc: float | None = None
    peak_epoch: int | None = None
    knn_peak: float | None = None
    probe_peak: float | None = None
    probe_final: float | None = None
    final_acc: float | None = None
    last_acc: float | None = None
    selected_epoch: int | None = None
    epochs_run: int = 0
    epochs_planned: int = 0
    epochs_to_half: int | None = None
    stopped_early: bool = False
    seconds: float = 0.0
    memory_mb: float = 0.0
    utilization: float | None = None
    gpu_share: float = 0.0
    device: str = ""
    commit: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    resolved: dict[str, Any] = field(default_factory=dict)
    derived_from: str | None = None
    winner: str | None = None
    error: str | None = None
    marks: list[str] = field(default_factory=list)
    finished: float = 0.0

    def row(self) -> dict[str, Any]:
        """The result as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Self:
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{k: v for k, v in row.items() if k in known})

    def summarize(self) -> None:
        """Fill peak, last, the epoch counts and a mark from the history and the probes."""
        self.epochs_run = len(self.history)
        probing = self.resolved.get("probing")
        found = peak_of(self.history)
        if found is not None:
            peak, self.peak_epoch = found
            self.peak_acc, self.knn_peak = (None, peak) if probing else (peak, None)
        low = (i for i, epoch in enumerate(self.history, 1) if epoch["train_loss"] < HALF_LOSS)
        self.epochs_to_half = next(low, None)
        if self.history and self.history[-1].get("collapsed"):
            self.marks = [*self.marks, COLLAPSED]
        if "clean_test" in self.probes:
            self.last_acc = self.probes["clean_test"]["acc"]
            if probing and probing.get("printed") == "peak":
                self.last_acc = self.probe_peak
            self.final_acc = None if self.stopped_early else self.last_acc
