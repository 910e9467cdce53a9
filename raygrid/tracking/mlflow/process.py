"""A writer in a process of its own; what it is told goes through a pipe, a line of JSON each."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from raygrid.core.errors import TrackingError
from raygrid.tracking.mlflow.address import SERVERS, split_uri
from raygrid.tracking.mlflow.client import check_tracking
from raygrid.tracking.mlflow.outbox import Update
from raygrid.tracking.mlflow.writer import INTERRUPTED, MlflowWriter

log = logging.getLogger(__name__)


class WriterProcess:
    """A `MlflowWriter` in a process of its own, which ends with this one whatever happens to this.

    Building one raises TrackingError unless MLflow answers. An address, which may hold a password,
    reaches it through the pipe: everybody sees the arguments of a process.
    """

    def __init__(self, out: Path, uri: str, name: str, every: float, wait: float) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            text=True,
            start_new_session=True,  # Ctrl-C is for the driver, which says what is to become of it
        )
        assert self._process.stdout is not None
        self._tell("open", [str(out), uri, name, every, wait])
        answer = self._process.stdout.readline()
        problem = json.loads(answer) if answer else "its writer did not start"
        if problem:
            self._end()
            raise TrackingError(problem)

    def start(self, specs: Sequence[str], late: Collection[str]) -> None:
        self._tell("start", [list(specs), list(late)])

    def put(self, key: str, update: Update) -> None:
        self._tell("put", [key, update.json()])

    def put_files(self, files: Sequence[Path]) -> None:
        self._tell("put_files", [[str(file) for file in files]])

    def close(self, interrupted: bool) -> None:
        """Wait until all is written, or for as long as that is any use."""
        self._tell("close", [interrupted])
        try:
            self._process.wait(2 * INTERRUPTED if interrupted else None)
        except subprocess.TimeoutExpired:
            log.warning("MLflow's writer does not end; `raygrid sync` brings what is missing")
        finally:
            self._end()

    def _end(self) -> None:
        self._process.kill()
        with suppress(BrokenPipeError), self._process:  # closes the pipes
            pass

    def _tell(self, what: str, given: list[Any]) -> None:
        assert self._process.stdin is not None
        # A writer that is gone has said why, and `sync` writes what it left.
        with self._lock, suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(json.dumps([what, given]) + "\n")
            self._process.stdin.flush()


def serve() -> None:
    """Do what the lines of the standard input say, until it ends."""
    lines = (json.loads(line) for line in sys.stdin)
    _, (out, uri, name, every, wait) = next(lines)
    try:
        writer = MlflowWriter(Path(out), uri, name, every, wait)  # which looks at a database itself
        if split_uri(uri).scheme in SERVERS:
            check_tracking(uri)
    except TrackingError as error:
        print(json.dumps(str(error)), flush=True)
        return
    print(json.dumps(None), flush=True)
    for what, given in lines:
        if what == "start":
            writer.start(*given)
        elif what == "put":
            writer.put(given[0], Update.from_json(given[1]))
        elif what == "put_files":
            writer.put_files([Path(file) for file in given[0]])
        else:
            writer.close(*given)
            return
