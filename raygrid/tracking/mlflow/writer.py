"""The thread that writes to MLflow what others put into its outbox."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from raygrid.storage.results import ResultLog
from raygrid.tracking.mlflow.address import DATABASES, split_uri, without_credentials
from raygrid.tracking.mlflow.client import MlflowExperiment, check_tracking, grid_key, is_transient
from raygrid.tracking.mlflow.facts import epoch_points, params_of
from raygrid.tracking.mlflow.outbox import Outbox, Update
from raygrid.tracking.mlflow.tables import Mirror

log = logging.getLogger(__name__)
INTERRUPTED = 4.0  # seconds
SHORTEST, LONGEST, LAST = 1.0, 30.0, 5.0  # seconds between tries; LAST while the driver waits


class MlflowWriter:
    """Writes rounds of updates until it is closed. Only `close` waits, and nothing raises.

    out: the folder of the run. uri: of the MLflow store. name: of the grid. every: seconds between
    two rounds. wait: seconds without progress after which `close` gives up; what is missing then
    is in the result log, and `sync` brings it.

    Building one raises TrackingError for an address that cannot be one, and makes a database's
    tables, so build it before anything else opens the database. `problem` is the last fault.
    """

    def __init__(self, out: Path, uri: str, name: str, every: float, wait: float) -> None:
        self.out, self.uri, self.name = out, uri, name
        self.every, self.wait = every, wait
        self.problem: str | None = None
        self.outbox = Outbox()
        if split_uri(uri).scheme.partition("+")[0] in DATABASES:
            check_tracking(uri)
        self._grid = grid_key(out, name)
        self._projection = MlflowExperiment.of(out, uri)
        self._mirror = Mirror(out, uri, self._grid, name)
        self._specs: Sequence[str] = []
        self._parent: str | None = None
        self._status = "FINISHED"
        self._closing, self._abandoned = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)

    def start(self, specs: Sequence[str], late: Collection[str]) -> None:
        """Begin. specs: of the whole grid. late: keys of the trials that have rows already."""
        self._specs = specs
        self.outbox.put_late(set(late))
        self._thread.start()

    def put(self, key: str, update: Update) -> None:
        self.outbox.put(key, update)

    def put_files(self, files: Sequence[Path]) -> None:
        self.outbox.put_files(files)

    def close(self, interrupted: bool) -> None:
        """Wait until all is written, or for as long as that is any use."""
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
                len(self.outbox),
                self.problem or "it is slow",
            )

    def _see_through(self) -> None:
        """Wait for the writer for as long as it gets on; a person is told that it takes time."""
        left, seen, said = len(self.outbox), time.monotonic(), False
        while self._thread.is_alive() and time.monotonic() - seen < self.wait:
            self._thread.join(min(self.wait, LAST))
            if len(self.outbox) < left:
                left, seen = len(self.outbox), time.monotonic()
                if not said and self._thread.is_alive():
                    log.warning("writing about %d more entries to MLflow", left)
                    said = True

    @property
    def _address(self) -> str:
        """Where MLflow is, without what opens it."""
        parts = split_uri(self.uri)
        return parts.netloc.rpartition("@")[2] or parts.path[1:]

    def _work(self) -> None:
        """Rounds of writing until the run is over and all is told; pauses grow with failures."""
        pause = self.every
        while not self._abandoned.is_set():
            last = self._closing.is_set()
            try:
                self._round()
                if last and not len(self.outbox):
                    self._end()
                    return
                pause, self.problem = self.every, None
            except Exception as error:
                self._complain(error)
                pause = min(max(SHORTEST, 2 * pause), LAST if last else LONGEST)
            if not last or self.problem:
                (self._abandoned if last else self._closing).wait(pause)

    def _complain(self, error: Exception) -> None:
        problem = without_credentials(error)
        if problem != self.problem:
            log.warning("MLflow: %s; trying again", problem)
        self.problem = problem

    def _round(self) -> None:
        """Tell everything that waits now; raises at the first transient fault."""
        if self._parent is None:
            self._parent = self._projection.grid(self._grid, self.name, self._specs)
        for _ in range(len(self.outbox)):
            taken = None if self._abandoned.is_set() else self.outbox.take()
            if taken is None:
                break
            self._deliver(self._parent, *taken)
        late, files = self.outbox.late(), self.outbox.files()
        if late:
            rows = ResultLog(self.out / "results.jsonl").rows()
            chosen = (row for row in rows if row["key"] in late)
            self._projection.catch_up(self._parent, chosen, self.outbox.told)
        for file in filter(Path.exists, files):
            self._mirror.keep(self._projection, self._parent, file)
        self.outbox.delivered(late, files)

    def _deliver(self, parent: str, key: str, update: Update) -> None:
        try:
            self._tell(parent, key, update)
        except Exception as error:
            self._projection.forget(key)  # perhaps somebody deleted the run
            update.refused += not is_transient(error)
            if update.refused > 1:
                log.warning("MLflow refuses %s: %s", update.spec, without_credentials(error))
                return
            self.outbox.give_back(key, update)
            if is_transient(error):
                raise

    def _tell(self, parent: str, key: str, update: Update) -> None:
        if update.result is not None:
            self._projection.finish(parent, update.result)
            return
        run = self._projection.trial(parent, key, update.spec, update.start)
        params = params_of(update.spec, update.resolved)
        tags = {"raygrid.status": "running"}
        self._projection.write(run, epoch_points(update.epochs), params, tags)

    def _end(self) -> None:
        """Nothing is left running: children without a row were killed with the run."""
        assert self._parent is not None
        self._projection.kill_orphans(self._parent)
        self._projection.end(self._grid, self._status, time.time())
