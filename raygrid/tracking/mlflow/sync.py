"""MLflow from the files of a run, whatever it lost: the follower once, after the run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from raygrid.core.errors import DataError, TrackingError
from raygrid.storage.results import REPORT_FILE, RESULTS_FILE
from raygrid.tracking.journal import GRIDS_FILE
from raygrid.tracking.mlflow.address import store_uri, without_credentials
from raygrid.tracking.mlflow.connection import check_tracking, client_faults, is_transient
from raygrid.tracking.mlflow.follower import Follower
from raygrid.tracking.mlflow.tables import MIRRORED_FOLDERS


@dataclass(frozen=True)
class Synced:
    """What a rebuilding did. written: runs of trials; there: those that MLflow has now."""

    written: int
    there: int


def _files(out: Path) -> list[Path]:
    """What a grid wrote beside its rows: tables, figures, the report page."""
    files = [
        file for folder in MIRRORED_FOLDERS for file in (out / folder).glob("*") if file.is_file()
    ]
    return sorted([*files, *out.glob(REPORT_FILE)])


def sync(out: Path, uri: str | None = None) -> Synced:
    """Rebuild the runs and tables of a folder.

    Complete runs are left alone, so a second call writes nothing. Raises TrackingError, and
    DataError for a folder in which nothing was run or whose record lacks something.
    """
    out = out.absolute()
    if not any((out / name).exists() for name in (RESULTS_FILE, GRIDS_FILE)):
        raise DataError(f"nothing was run in {out}; name the folder of a run with --out")
    uri = store_uri(out, uri)
    check_tracking(uri)
    follower = Follower(out, uri)
    follower.read()
    files = _files(out)
    try:
        follower.take_tables(files)
        follower.write()
        follower.end("KILLED", time.time())
        there = len(follower.experiment.prune())
    except client_faults() as error:
        if isinstance(error, OSError) and error.filename:  # a file's, not MLflow's
            raise
        what = "stopped answering during sync" if is_transient(error) else "refuses what sync asks"
        raise TrackingError(f"MLflow {what}: {without_credentials(error)}") from error
    return Synced(follower.written, there)
