"""What the files of a run say of its grids and of trials without rows, until MLflow was told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from raygrid.literature.printed import Printed
from raygrid.storage.results import Json
from raygrid.tracking import journal
from raygrid.tracking.journal import EPOCHS_FILE, GRIDS_FILE, Tail
from raygrid.tracking.mlflow.facts import Control, Shown
from raygrid.tracking.names import names_of
from raygrid.tracking.published import printed_again, published_of

MOST_EPOCHS = 500  # of a trial that are kept while they wait; its row has all of them


@dataclass
class UnfinishedTrial:
    """A trial without a row: what it is, and epochs that MLflow has not been told."""

    spec: str
    resolved: Json
    start: float
    epochs: list[dict[str, float]] = field(default_factory=list)
    told: bool = False

    @property
    def waits(self) -> bool:
        return bool(self.epochs) or not self.told


@dataclass
class FollowedGrid:
    """A grid of the folder. ended: status and time, None while it goes on."""

    key: str
    name: str
    specs: list[str]
    files: list[Path] = field(default_factory=list)
    ended: tuple[str, float] | None = None
    parent: str = ""
    published: dict[str, Printed] | None = None  # None: nobody has looked yet

    def shown(self, spec: str, control: Control | None) -> Shown:
        """What stands beside a trial of the grid."""
        if self.published is None:
            self.published = published_of(self.specs)
        return Shown(self.names.get(spec, spec), control, self.published.get(spec))

    @cached_property
    def names(self) -> dict[str, str]:
        """Specs to what the trials are called."""
        return names_of(self.specs)


def followed(key: str, line: Json) -> FollowedGrid:
    """A grid as the line says that it wrote when it started."""
    grid = FollowedGrid(key, line["name"], line["specs"])
    if "printed" in line:  # a grid of an older version has other fields
        grid.published = {spec: printed_again(number) for spec, number in line["printed"].items()}
    return grid


class FollowedGrids:
    """The grids of a folder, as the lines of its `grids.jsonl` have them by now.

    known: by key, in the order in which they started.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.known: dict[str, FollowedGrid] = {}
        self._lines = Tail(out / GRIDS_FILE)
        self._home: dict[str, str] = {}  # spec -> key of the first grid that has it

    def read(self) -> None:
        """Take in new lines; raises DataError for one of ours without a field."""
        for place, line in self._lines.read():
            key, event = line.get("grid"), line.get("event")
            if event == "started" and isinstance(key, str):
                self._lines.require(place, line, journal.STARTED_FIELDS)
                self._start(key, line)
            elif key in self.known and event == "tables":
                self._lines.require(place, line, journal.TABLES_FIELDS)
                self.known[key].files = [self.out / file for file in line["files"]]
            elif key in self.known and event == "ended":
                self._lines.require(place, line, journal.ENDED_FIELDS)
                self.known[key].ended = line["status"], line["at"]

    def _start(self, key: str, line: Json) -> None:
        grid = self.known.setdefault(key, followed(key, line))
        grid.ended = None
        for spec in grid.specs:
            self._home.setdefault(spec, key)

    def home_of(self, spec: str) -> FollowedGrid | None:
        """The first grid that has a trial, None if none has."""
        home = self._home.get(spec)
        return None if home is None else self.known[home]


class UnfinishedTrials:
    """The trials of a folder without a row, as the lines of its `epochs.jsonl` have them by now."""

    def __init__(self, out: Path) -> None:
        self._lines = Tail(out / EPOCHS_FILE)
        self._known: dict[str, UnfinishedTrial] = {}

    def read(self, over: Mapping[str, float]) -> None:
        """Take in new lines; raises DataError for one of ours without a field.

        over: when the last attempt of each trial with a row was over, by key. A trial that runs
        again has one too, but began later, so that it stays.
        """
        for place, line in self._lines.read():
            key = line.get("key", "")
            if "spec" in line:
                self._lines.require(place, line, journal.TRIAL_FIELDS)
                self._known[key] = UnfinishedTrial(line["spec"], line["resolved"], line["start"])
            elif key in self._known:
                self._lines.require(place, line, journal.EPOCH_FIELDS)
                epochs = self._known[key].epochs
                epochs.append(line["epoch"])
                del epochs[:-MOST_EPOCHS]
        for key in [k for k, t in self._known.items() if over.get(k, 0.0) >= t.start]:
            del self._known[key]

    def waiting(self) -> Iterator[tuple[str, UnfinishedTrial]]:
        """Those with something that MLflow has not been told, by key."""
        for key, trial in list(self._known.items()):
            if trial.waits:
                yield key, trial
