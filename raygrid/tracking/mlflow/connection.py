"""Reaching MLflow: a client that gives up at once, and what its faults mean."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from raygrid.core.errors import TrackingError
from raygrid.core.secrets import shown
from raygrid.tracking.mlflow.address import check_address, database_path, without_credentials

TRANSIENT_CODES = {
    "INTERNAL_ERROR",
    "TEMPORARILY_UNAVAILABLE",
    "REQUEST_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "DEADLINE_EXCEEDED",
}
PASSING_STATUSES = (408, 425, 429)
"""Answers of a server, besides 500 and above, after which asking again may help."""


def check_tracking(uri: str, timeout: float = 5.0) -> None:
    """Raise TrackingError, in one sentence, unless MLflow answers at `uri`.

    A database gets its tables here: do this once before several processes open it.
    """
    check_address(uri, timeout)
    try:
        path = database_path(uri)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            _check_writable(path)
        mlflow_client(uri).search_experiments(max_results=1)
    except Exception as error:
        raise TrackingError(
            f"MLflow at {shown(uri)} cannot be used: {without_credentials(error)}"
        ) from None


def _check_writable(path: Path) -> None:
    """Raise PermissionError for a database that may be read and not written, before a run starts.

    SQLite writes a journal beside it, so its folder counts too.
    """
    for place in (path, path.parent):
        if place.exists() and not os.access(place, os.W_OK):
            raise PermissionError(
                f"{place} cannot be written; name another database with --tracking, or off"
            )


def mlflow_client(uri: str) -> Any:
    """A client that gives up at once, because the thread that writes tries again itself.

    A client that repeats requests on its own opens a second run where the first answer was lost.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Of a server it prints two lines a run, after a request of its own for each.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    from mlflow.tracking import MlflowClient

    # Its notes on tables and its tracebacks are no news: faults are told in one line here.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    return MlflowClient(tracking_uri=uri)


def client_faults() -> tuple[type[Exception], ...]:
    """What a client of MLflow raises: MLflow's own, the network's, and a database's at its start.

    A function, because importing MLflow takes seconds and most runs meet no fault.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, OSError, SQLAlchemyError


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    code = getattr(error, "error_code", None)
    if code is not None:
        return code in TRANSIENT_CODES
    answer = getattr(error, "response", None)  # of requests, whose errors are OSErrors all
    if answer is not None:
        return answer.status_code in PASSING_STATUSES or answer.status_code >= 500
    return isinstance(error, OSError)


def is_gone(error: Exception) -> bool:
    """Whether MLflow has no experiment or run of the id that it was asked about."""
    return getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"
