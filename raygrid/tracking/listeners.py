"""Who listens to a run beside what keeps its rows, as its options say."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator

from raygrid.core.options import Options
from raygrid.engine.events import Listener
from raygrid.tracking.status import StatusFile


def check_listeners(options: Options) -> None:
    """Raises TrackingError unless MLflow is where it is said to be, if it is wanted.

    Nothing is written. Whether a database takes a client is found out by the process that writes to
    it.
    """
    if _is_tracked(options):
        from raygrid.tracking.mlflow.address import check_address, store_uri

        check_address(store_uri(options.out, options.tracking))


def _is_tracked(options: Options) -> bool:
    """Whether a run is shown in MLflow: that is wanted, and MLflow is installed."""
    return options.tracking != "off" and importlib.util.find_spec("mlflow") is not None


@contextlib.contextmanager
def listeners_of(options: Options) -> Iterator[list[Listener]]:
    """The status file, and the display and MLflow as far as they are wanted, for one run.

    At the end MLflow's writer is gone, also where no run came about. Raises TrackingError if MLflow
    is down.
    """
    listeners: list[Listener] = [StatusFile(options.out.absolute())]
    if not options.quiet:
        from raygrid.tracking.display import ProgressDisplay

        listeners.append(ProgressDisplay())
    if not _is_tracked(options):
        if options.tracking != "off":
            print("MLflow is not installed: results are in results.jsonl alone", file=sys.stderr)
        yield listeners
        return
    from raygrid.tracking.mlflow import Tracker

    tracker = Tracker(options.out, options.tracking, own=True)
    try:
        yield [*listeners, tracker]
    finally:
        tracker.close(interrupted=True)  # a run that began has closed it
