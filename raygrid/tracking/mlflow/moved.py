"""A run folder that was moved or copied: its database still names the place where files were."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from raygrid.core.errors import TrackingError
from raygrid.tracking.mlflow.address import database_path


def follow_folder(out: Path, uri: str, experiments: Sequence[str]) -> int:
    """Let the files of a folder's own database lie under the folder as it is now.

    MLflow writes absolute addresses into each experiment and run, and has no call that changes
    them, so they are changed in the database. Other databases are left alone: who else reads them
    is not known. Returns how many experiments were moved; raises TrackingError.
    """
    path = database_path(uri)
    if path is None or path != out.absolute() / "mlflow.db" or not path.exists():
        return 0
    artifacts = out.absolute() / "mlartifacts"
    try:
        with closing(sqlite3.connect(path)) as database, database:
            known = experiments if _has_tables(database) else ()
            return sum(_moved(database, name, artifacts) for name in known)
    except sqlite3.Error as error:
        raise TrackingError(f"MLflow's database {path} cannot be used: {error}") from None


def _has_tables(database: sqlite3.Connection) -> bool:
    names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return {("experiments",), ("runs",)} <= set(names)


def _moved(database: sqlite3.Connection, experiment: str, artifacts: Path) -> bool:
    wanted = (artifacts / experiment).as_uri()
    query = "SELECT experiment_id, artifact_location FROM experiments WHERE name = ?"
    found = database.execute(query, (experiment,)).fetchone()
    if found is None or found[1] == wanted:
        return False
    number, old = found
    database.execute(
        "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (wanted, number)
    )
    database.execute(
        "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
        "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
        (wanted, len(old) + 1, number, len(old), old),
    )
    return True
