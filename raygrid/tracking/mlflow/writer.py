"""The thread that follows the files of a run while it goes on, and tries again what fails."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from raygrid.core.errors import DataError
from raygrid.tracking.mlflow.address import DATABASE_SCHEMES, split_uri, without_credentials
from raygrid.tracking.mlflow.connection import check_tracking, client_faults
from raygrid.tracking.mlflow.follower import Follower

log = logging.getLogger(__name__)
INTERRUPTED_SECONDS = 4.0  # seconds
SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between tries
LAST_PAUSE = 5.0  # seconds between tries while the driver waits


class MlflowWriter:
    """Writes rounds until it is closed. Only `close` waits, and nothing raises.

    out: the folder of the run. uri: of the MLflow store. every: seconds between two rounds. wait:
    seconds without progress after which `close` gives up; `sync` brings what is missing then.

    Building one raises TrackingError for an address that cannot be one, and makes a database's
    tables, so build it before anything else opens the database. `problem` is the last fault.
    """

    def __init__(self, out: Path, uri: str, every: float, wait: float) -> None:
        self.uri, self.every, self.wait = uri, every, wait
        self.problem: str | None = None
        if split_uri(uri).scheme.partition("+")[0] in DATABASE_SCHEMES:
            check_tracking(uri)
        self.follower = Follower(out, uri)
        self._status = "FINISHED"
        self._closing, self._abandoned = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def close(self, interrupted: bool) -> None:
        """Wait until all is written, or for as long as that is any use."""
        if not self._thread.is_alive():
            return
        if interrupted:  # who interrupts a run wants the prompt back
            self._status = "KILLED"
            self._closing.set()
            self._thread.join(min(self.wait, INTERRUPTED_SECONDS))
            self._give_up()
        else:
            self.finish("FINISHED")

    def finish(self, status: str) -> None:
        """Wait for as long as it gets on. status: of a grid whose end no file tells."""
        self._status = status
        self._closing.set()
        self._see_through()
        self._give_up()

    def _give_up(self) -> None:
        """The end, with a line if MLflow lacks anything."""
        late, missing = self._thread.is_alive(), self.follower.missing
        if late:
            self._abandoned.set()
        if late or missing:
            log.warning(
                "MLflow at %s lacks about %d entries (%s); `raygrid sync` brings them",
                self._address,
                missing,
                (self.problem or "it is slow") if late else "it refuses them",
            )

    def _see_through(self) -> None:
        """Wait for the writer for as long as it gets on; a person is told that it takes time."""
        left, seen, said = self.follower.waiting, time.monotonic(), False
        while self._thread.is_alive() and time.monotonic() - seen < self.wait:
            self._thread.join(min(self.wait / 4, LAST_PAUSE))
            now = self.follower.waiting
            if now == left:
                continue
            left, seen = now, time.monotonic()
            if left and not said and self._thread.is_alive():
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
                self.follower.read()
                self.follower.write(self._abandoned.is_set)
                if last and not self.follower.waiting:
                    self.follower.end(self._status, time.time())
                    return
                pause, self.problem = self.every, None
            except DataError as error:  # of one line of a file, which the next round leaves behind
                log.warning("MLflow lacks something: %s", error)
            except client_faults() as error:
                self._complain(error)
                pause = min(max(SHORTEST_PAUSE, 2 * pause), LAST_PAUSE if last else LONGEST_PAUSE)
            except Exception:  # a fault of the program, which the next round would meet again
                log.exception("MLflow's writer ended; `raygrid sync` brings what is missing")
                return
            if not last or self.problem:
                (self._abandoned if last else self._closing).wait(pause)

    def _complain(self, error: Exception) -> None:
        problem = without_credentials(error)
        if problem != self.problem:
            log.warning("MLflow: %s; trying again", problem)
        self.problem = problem
