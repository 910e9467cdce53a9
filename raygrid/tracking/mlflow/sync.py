"""MLflow from the files of a run, whatever it lost."""

from __future__ import annotations

import time
from pathlib import Path

from raygrid.core.errors import TrackingError
from raygrid.storage.results import ResultLog
from raygrid.tracking.mlflow.address import store_uri, without_credentials
from raygrid.tracking.mlflow.client import MlflowExperiment, check_tracking, grid_key
from raygrid.tracking.mlflow.tables import Mirror


def sync(out: Path, uri: str | None = None, name: str | None = None) -> int:
    """Rebuild the runs and tables of a folder; returns how many runs of trials were written.

    Complete runs are left alone, so a second call writes nothing. Raises TrackingError.
    """
    out = out.absolute()
    uri, name = store_uri(out, uri), name or out.name
    check_tracking(uri)
    rows = list(ResultLog(out / "results.jsonl").rows())
    projection = MlflowExperiment.of(out, uri)
    key = grid_key(out, name)
    mirror = Mirror(out, uri, key, name)
    try:
        parent = projection.grid(key, name, (row["spec"] for row in rows))
        written = projection.catch_up(parent, rows)
        for file in sorted((out / "tables").glob("*")):
            mirror.keep(projection, parent, file)
        projection.kill_orphans(parent)
        projection.end(key, "FINISHED", time.time())
    except Exception as error:
        raise TrackingError(
            f"MLflow stopped answering during sync: {without_credentials(error)}"
        ) from error
    return written
