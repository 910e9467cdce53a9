"""The listener that has MLflow written: it starts a writer and sees to its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raygrid.engine.events import Listener
from raygrid.tracking.mlflow.address import store_uri
from raygrid.tracking.mlflow.process import WriterProcess
from raygrid.tracking.mlflow.writer import MlflowWriter

if TYPE_CHECKING:
    from raygrid.engine.grid import Plan
    from raygrid.trials.result import Result
    from raygrid.trials.trial import Trial


class Tracker(Listener):
    """Shows a run in MLflow while it goes on. Its methods neither wait for MLflow nor raise.

    It tells nothing itself: the writer follows the files that `Journal` and the result log write.
    Put it behind these among the listeners.

    out: the folder of the run. uri: see `store_uri`. every: seconds between two rounds of writing.
    wait: seconds without progress after which `close` gives the writer up; what is missing then
    is in the files, and `sync` brings it.
    own: whether the writer has a process of its own. MLflow takes about as long to write a row as
    the engine for a trial; that should not be the driver's time.

    Building one raises TrackingError for an address that cannot be one (in a process of its own,
    for a server that does not answer too), and makes a database's tables, so build it before
    anything else opens the database.
    """

    def __init__(
        self,
        out: Path,
        uri: str | None = None,
        *,
        every: float = 5.0,
        wait: float = 60.0,
        own: bool = False,
    ) -> None:
        self.out = Path(out).absolute()
        address = store_uri(self.out, uri)
        self.writer: MlflowWriter | WriterProcess = (
            WriterProcess(self.out, address, every, wait)
            if own
            else MlflowWriter(self.out, address, every, wait)
        )

    def started(self, plan: Plan, todo: Sequence[Trial]) -> None:
        self.writer.start()

    def trial_finished(self, trial: Trial, result: Result) -> None:
        if isinstance(self.writer, WriterProcess):
            self.writer.revive()

    def tables(self, files: Sequence[Path]) -> None:
        if isinstance(self.writer, WriterProcess):
            self.writer.revive()

    def close(self, interrupted: bool) -> None:
        self.writer.close(interrupted)
