"""The listener that tells MLflow: the driver hands over, one thread writes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raygrid.events import Listener
from raygrid.grid import Plan
from raygrid.resolve import Trial
from raygrid.result import History, Result
from raygrid.store import ResultLog
from raygrid.tracking.address import DATABASES, first_line, split_uri, store_uri
from raygrid.tracking.facts import epoch_metrics, params_of
from raygrid.tracking.mirror import Mirror
from raygrid.tracking.projection import Projection, check, grid_key, is_transient

log = logging.getLogger(__name__)
LETTERS, EPOCHS = 1_000, 500
INTERRUPTED = 4.0  # seconds
SHORTEST, LONGEST, LAST = 1.0, 30.0, 5.0  # seconds between tries; LAST while the driver waits


@dataclass
class Letter:
    """What is still to be told about one trial: that it runs, new epochs, or its row.

    start: s since 1970. refused: how often MLflow refused the letter for good.
    """

    spec: str
    resolved: dict[str, Any]
    start: float = field(default_factory=time.time)
    epochs: History = field(default_factory=list)
    result: Result | None = None
    refused: int = 0

    def add(self, newer: Letter) -> None:
        """Make this letter say what `newer` says too; a row says all that its epochs say."""
        self.result = newer.result or self.result
        self.epochs = [] if self.result else (self.epochs + newer.epochs)[-EPOCHS:]


class Outbox:
    """Letters by trial, merged while they wait, so that a slow store gets few large ones.

    Bounded: a letter holds the latest `EPOCHS` epochs (its row has all of them), and of rows
    beyond `LETTERS` only the keys are kept (the result log has the rows).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._letters: dict[str, Letter] = {}
        self._late: set[str] = set()
        self._files: list[Path] = []

    def __len__(self) -> int:
        with self._lock:
            return len(self._letters) + len(self._late) + len(self._files)

    def put(self, key: str, letter: Letter) -> None:
        with self._lock:
            if key in self._letters:
                self._letters[key].add(letter)
            elif len(self._letters) < LETTERS:
                self._letters[key] = letter
            elif letter.result is not None:
                self._late.add(key)

    def put_late(self, keys: set[str]) -> None:
        """Trials whose rows lie in the result log."""
        with self._lock:
            self._late |= keys

    def put_files(self, files: Sequence[Path]) -> None:
        with self._lock:
            self._files = list(dict.fromkeys([*self._files, *files]))

    def take(self) -> tuple[str, Letter] | None:
        """The letter that has waited longest."""
        with self._lock:
            key = next(iter(self._letters), None)
            return None if key is None else (key, self._letters.pop(key))

    def give_back(self, key: str, letter: Letter) -> None:
        """A letter that could not be delivered; it goes to the end of the line."""
        with self._lock:
            newer = self._letters.pop(key, None)
            if newer is not None:
                letter.add(newer)
            self._letters[key] = letter

    def late(self) -> set[str]:
        with self._lock:
            return set(self._late)

    def files(self) -> list[Path]:
        with self._lock:
            return list(self._files)

    def told(self, key: str) -> None:
        """The row of a trial in the log has been dealt with."""
        with self._lock:
            self._late.discard(key)

    def delivered(self, late: set[str], files: Sequence[Path]) -> None:
        with self._lock:
            self._late -= late
            self._files = [file for file in self._files if file not in files]


class Tracker(Listener):
    """Shows a run in MLflow while it goes on. Its methods neither wait for MLflow nor raise.

    out: the folder of the run. uri: see `store_uri`. name: of the grid, default the folder's.
    every: seconds between two rounds of writing. wait: seconds without progress after which `close`
    gives the writer up; what is missing then is in the result log, and `sync` brings it.

    Building one raises TrackingError for an address that cannot be one, and makes a database's
    tables, so build it before anything else opens the database. `problem` is the last fault.
    """

    def __init__(
        self,
        out: Path,
        uri: str | None = None,
        name: str | None = None,
        every: float = 5.0,
        wait: float = 60.0,
    ) -> None:
        self.out = Path(out).absolute()
        self.uri = store_uri(self.out, uri)
        self.name = name or self.out.name
        self.every, self.wait = every, wait
        self.problem: str | None = None
        if split_uri(self.uri).scheme.partition("+")[0] in DATABASES:
            check(self.uri)
        self._grid = grid_key(self.out, self.name)
        self._projection = Projection.of(self.out, self.uri)
        self._mirror = Mirror(self.out, self.uri, self._grid, self.name)
        self._outbox = Outbox()
        self._specs: list[str] = []
        self._parent: str | None = None
        self._status = "FINISHED"
        self._closing, self._abandoned = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)

    # The driver's side.

    def started(self, plan: Plan, todo: Sequence[Trial]) -> None:
        trials = [*plan.trials, *plan.derived]
        self._specs = [str(trial.spec) for trial in trials]
        self._outbox.put_late({trial.key for trial in trials} - {trial.key for trial in todo})
        self._thread.start()

    def trial_started(self, trial: Trial) -> None:
        self._outbox.put(trial.key, Letter(str(trial.spec), trial.resolved()))

    def epoch(self, trial: Trial, metrics: dict[str, float]) -> None:
        letter = Letter(str(trial.spec), trial.resolved(), epochs=[dict(metrics)])
        self._outbox.put(trial.key, letter)

    def trial_finished(self, trial: Trial, result: Result) -> None:
        letter = Letter(str(trial.spec), trial.resolved(), result=result)
        self._outbox.put(result.key, letter)

    def tables(self, files: Sequence[Any]) -> None:
        self._outbox.put_files([Path(file) for file in files])

    def close(self, interrupted: bool) -> None:
        if not self._thread.is_alive():
            return
        self._status = "KILLED" if interrupted else "FINISHED"
        self._closing.set()
        if interrupted:  # who interrupts a run wants the prompt back
            self._thread.join(min(self.wait, INTERRUPTED))
        else:
            self._see_through()
        if self._thread.is_alive():
            self._abandoned.set()
            log.warning(
                "MLflow at %s lacks about %d entries (%s); `raygrid sync` brings them",
                self._address,
                len(self._outbox),
                self.problem or "it is slow",
            )

    def _see_through(self) -> None:
        """Wait for the writer for as long as it gets on; a person is told that it takes time."""
        left, seen, said = len(self._outbox), time.monotonic(), False
        while self._thread.is_alive() and time.monotonic() - seen < self.wait:
            self._thread.join(min(self.wait, LAST))
            if len(self._outbox) < left:
                left, seen = len(self._outbox), time.monotonic()
                if not said and self._thread.is_alive():
                    log.warning("writing about %d more entries to MLflow", left)
                    said = True

    @property
    def _address(self) -> str:
        """Where MLflow is, without what opens it."""
        parts = split_uri(self.uri)
        return parts.netloc.rpartition("@")[2] or parts.path[1:]

    # The writer's side.

    def _work(self) -> None:
        """Rounds of writing until the run is over and all is told; pauses grow with failures."""
        pause = self.every
        while not self._abandoned.is_set():
            last = self._closing.is_set()
            try:
                self._round()
                if last and not len(self._outbox):
                    self._end()
                    return
                pause, self.problem = self.every, None
            except Exception as error:
                self._complain(error)
                pause = min(max(SHORTEST, 2 * pause), LAST if last else LONGEST)
            if not last or self.problem:
                (self._abandoned if last else self._closing).wait(pause)

    def _complain(self, error: Exception) -> None:
        problem = first_line(error)
        if problem != self.problem:
            log.warning("MLflow: %s; trying again", problem)
        self.problem = problem

    def _round(self) -> None:
        """Tell everything that waits now; raises at the first transient fault."""
        if self._parent is None:
            self._parent = self._projection.grid(self._grid, self.name, self._specs)
        for _ in range(len(self._outbox)):
            taken = None if self._abandoned.is_set() else self._outbox.take()
            if taken is None:
                break
            self._deliver(self._parent, *taken)
        late, files = self._outbox.late(), self._outbox.files()
        if late:
            rows = ResultLog(self.out / "results.jsonl").rows()
            chosen = (row for row in rows if row["key"] in late)
            self._projection.catch_up(self._parent, chosen, self._outbox.told)
        for file in filter(Path.exists, files):
            self._mirror.keep(self._projection, self._parent, file)
        self._outbox.delivered(late, files)

    def _deliver(self, parent: str, key: str, letter: Letter) -> None:
        try:
            self._tell(parent, key, letter)
        except Exception as error:
            self._projection.forget(key)  # perhaps somebody deleted the run
            letter.refused += not is_transient(error)
            if letter.refused > 1:
                log.warning("MLflow refuses %s: %s", letter.spec, first_line(error))
                return
            self._outbox.give_back(key, letter)
            if is_transient(error):
                raise

    def _tell(self, parent: str, key: str, letter: Letter) -> None:
        if letter.result is not None:
            self._projection.finish(parent, letter.result)
            return
        run = self._projection.trial(parent, key, letter.spec, letter.start)
        params = params_of(letter.spec, letter.resolved)
        tags = {"raygrid.status": "running"}
        self._projection.write(run, epoch_metrics(letter.epochs), params, tags)

    def _end(self) -> None:
        """Nothing is left running: children without a row were killed with the run."""
        assert self._parent is not None
        self._projection.bury(self._parent)
        self._projection.end(self._grid, self._status, time.time())
