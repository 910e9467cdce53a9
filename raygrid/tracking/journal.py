"""What a run leaves on disk while it goes on, for whoever follows it: grids and epochs.

    grids.jsonl     a line when a grid starts, when its tables are written, when it ends
    epochs.jsonl    the epochs of the trials that have no row yet, begun anew by every run

Together with `results.jsonl` they are all that MLflow is made of, live and afterwards.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygrid.core.errors import DataError
from raygrid.core.hashing import key_of
from raygrid.engine.events import Listener
from raygrid.storage.lines import append_line
from raygrid.storage.results import Json
from raygrid.tracking.published import published_of

if TYPE_CHECKING:
    from raygrid.engine.grid import Plan
    from raygrid.trials.trial import Trial

GRIDS_FILE, EPOCHS_FILE = "grids.jsonl", "epochs.jsonl"
PICTURES_FOLDER = "pictures"
EPOCH_LINE_SECONDS = 1.0  # seconds between two lines of one trial: its row will hold every epoch
STARTED_FIELDS = {"name": "text", "specs": "list"}
TABLES_FIELDS = {"files": "list"}
ENDED_FIELDS = {"status": "text", "at": "number"}
TRIAL_FIELDS = {"spec": "text", "resolved": "object", "start": "number"}
EPOCH_FIELDS = {"epoch": "object"}
"""What lines of the two files hold, by name: of grids the first three, of epochs the others."""
FIELD_TYPES: dict[str, type | tuple[type, ...]] = {
    "text": str,
    "list": list,
    "object": dict,
    "number": (int, float),
}


class Journal(Listener):
    """Writes both files under `out`; name: of the grid, for a person."""

    def __init__(self, out: Path, name: str, every: float = EPOCH_LINE_SECONDS) -> None:
        self.out, self.name, self.every = out.absolute(), name, every
        self.grid = ""
        self._wrote: dict[str, float] = {}

    def started(self, plan: Plan, todo: Sequence[Trial]) -> None:
        specs = [str(trial.spec) for trial in (*plan.trials, *plan.derived)]
        self.grid = grid_key(self.out, specs)
        (self.out / EPOCHS_FILE).write_text(
            "", encoding="utf-8"
        )  # of trials that have their rows by now, or run again
        printed = {spec: asdict(number) for spec, number in published_of(specs).items()}
        self._say(event="started", name=self.name, specs=specs, printed=printed)

    def trial_started(self, trial: Trial) -> None:
        self._wrote.pop(trial.key, None)
        facts = {"spec": str(trial.spec), "resolved": trial.resolved(), "start": time.time()}
        self._append(EPOCHS_FILE, {"key": trial.key, **facts})

    def epoch(self, trial: Trial, metrics: dict[str, float]) -> None:
        now = time.monotonic()
        if now - self._wrote.get(trial.key, -self.every) >= self.every:
            self._wrote[trial.key] = now
            self._append(EPOCHS_FILE, {"key": trial.key, "epoch": metrics})

    def tables(self, files: Sequence[Path]) -> None:
        # Below the folder without it: it may be moved.
        inside = (Path(file).absolute() for file in files)
        names = [f.relative_to(self.out) if f.is_relative_to(self.out) else f for f in inside]
        self._say(event="tables", files=[str(name) for name in names])

    def close(self, interrupted: bool) -> None:
        if self.grid:
            self._say(event="ended", status="KILLED" if interrupted else "FINISHED")

    def _say(self, **facts: Any) -> None:
        self._append(GRIDS_FILE, {"grid": self.grid, "at": time.time(), **facts})

    def _append(self, name: str, line: Json) -> None:
        """Add a line. One that cannot be written ends no run: a follower lacks it until `sync`."""
        with suppress(OSError):
            append_line(self.out / name, json.dumps(line), durable=False)


def picture_of(out: Path, poison: str) -> Path:
    """Where the picture of the poison with this key lies in a run folder, if there is one."""
    return out / PICTURES_FOLDER / poison / "poison.png"


def folder_mark(out: Path) -> str:
    """A random text that names a run folder, wherever it is moved."""
    out.mkdir(parents=True, exist_ok=True)
    mark = out / "grid_id"
    with suppress(FileExistsError), mark.open("x", encoding="utf-8") as file:
        file.write(uuid.uuid4().hex)
    return mark.read_text(encoding="utf-8")


def grid_key(out: Path, specs: Iterable[str]) -> str:
    """The key of a grid: of its folder and its trials, so that resuming it is the same grid."""
    return key_of(["grid", folder_mark(out), sorted(set(specs))])


@dataclass
class Tail:
    """New lines of a file that others append to; starts anew if the file was begun anew.

    A line that is not finished yet waits; `broken` counts lines that are no JSON object.
    """

    path: Path
    offset: int = 0
    broken: int = 0

    def read(self) -> Iterator[tuple[int, Json]]:
        """Each new line with its place in the file (bytes from its start)."""
        try:
            size = self.path.stat().st_size
        except OSError:
            return
        if size < self.offset:
            self.offset = 0
        with self.path.open("rb") as file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                place, self.offset = self.offset, self.offset + len(line)
                value = parsed(line)
                if value is None:
                    self.broken += 1
                else:
                    yield place, value

    def require(self, place: int, line: Json, fields: Mapping[str, str]) -> None:
        """Raise DataError for a line of this file that lacks a field, or has one of another type.

        place: where the line begins. fields: their types, words of FIELD_TYPES, by name.
        """
        for name, wanted in fields.items():
            if not isinstance(line.get(name), FIELD_TYPES[wanted]):
                has = f"{name!r} is {line[name]!r}" if name in line else f"it has no {name!r}"
                number = self.path.read_bytes()[:place].count(b"\n") + 1
                raise DataError(
                    f"{self.path}, line {number}: {has}, which has to be a {wanted}; correct the "
                    "line or delete it"
                )


def parsed(line: bytes) -> Json | None:
    """A line of JSON that holds an object; None for any other."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):  # UnicodeDecodeError among them
        return None
    return value if isinstance(value, dict) else None


def line_at(path: Path, place: int) -> Json | None:
    """The object of the line that begins at a place of a file."""
    with path.open("rb") as file:
        file.seek(place)
        return parsed(file.readline())
