"""The listener that tells MLflow: the driver hands over, a writer writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygrid.engine.events import Listener
from raygrid.tracking.mlflow.address import store_uri
from raygrid.tracking.mlflow.outbox import Update
from raygrid.tracking.mlflow.process import WriterProcess
from raygrid.tracking.mlflow.writer import MlflowWriter

if TYPE_CHECKING:
    from raygrid.engine.grid import Plan
    from raygrid.trials.result import Result
    from raygrid.trials.trial import Trial


class Tracker(Listener):
    """Shows a run in MLflow while it goes on. Its methods neither wait for MLflow nor raise.

    out: the folder of the run. uri: see `store_uri`. name: of the grid, default the folder's.
    every: seconds between two rounds of writing. wait: seconds without progress after which `close`
    gives the writer up; what is missing then is in the result log, and `sync` brings it.
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
        name: str | None = None,
        *,
        every: float = 5.0,
        wait: float = 60.0,
        own: bool = False,
    ) -> None:
        self.out = Path(out).absolute()
        given = self.out, store_uri(self.out, uri), name or self.out.name, every, wait
        self.writer: MlflowWriter | WriterProcess = (
            WriterProcess(*given) if own else MlflowWriter(*given)
        )

    def started(self, plan: Plan, todo: Sequence[Trial]) -> None:
        trials = [*plan.trials, *plan.derived]
        late = {trial.key for trial in trials} - {trial.key for trial in todo}
        self.writer.start([str(trial.spec) for trial in trials], late)

    def trial_started(self, trial: Trial) -> None:
        self.writer.put(trial.key, Update(str(trial.spec), trial.resolved()))

    def epoch(self, trial: Trial, metrics: dict[str, float]) -> None:
        update = Update(str(trial.spec), trial.resolved(), epochs=[dict(metrics)])
        self.writer.put(trial.key, update)

    def trial_finished(self, trial: Trial, result: Result) -> None:
        update = Update(str(trial.spec), trial.resolved(), result=result)
        self.writer.put(result.key, update)

    def tables(self, files: Sequence[Any]) -> None:
        self.writer.put_files([Path(file) for file in files])

    def close(self, interrupted: bool) -> None:
        self.writer.close(interrupted)
