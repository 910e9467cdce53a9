"""A writer in a process of its own: MLflow's time is not the driver's."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from raygrid.core.errors import TrackingError
from raygrid.tracking.mlflow.address import SERVER_SCHEMES, split_uri
from raygrid.tracking.mlflow.connection import check_tracking
from raygrid.tracking.mlflow.writer import INTERRUPTED_SECONDS, MlflowWriter

log = logging.getLogger(__name__)
MOST_STARTS = 3  # of a writer that dies, in one run


class WriterProcess:
    """A `MlflowWriter` in a process of its own.

    It follows the files of the run, so it needs no word until the end. If the driver dies, it
    writes what there is and closes the grid; if it dies itself, `revive` starts another.

    Building one raises TrackingError unless MLflow answers. An address, which may hold a password,
    reaches it through the pipe: everybody sees the arguments of a process.
    """

    def __init__(self, out: Path, uri: str, every: float, wait: float) -> None:
        self._given = [str(out), uri, every, wait]
        self._lock = threading.Lock()
        self._starts = 0
        self._following = False
        self._process = self._begin()

    def _begin(self) -> subprocess.Popen[str]:
        self._starts += 1
        process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            text=True,
            start_new_session=True,  # Ctrl-C is for the driver, which says what is to become of it
        )
        self._process = process
        assert process.stdout is not None
        self._tell(self._given)
        answer = process.stdout.readline()
        problem = json.loads(answer) if answer else "its writer did not start"
        if problem:
            self._end()
            raise TrackingError(problem)
        return process

    def start(self) -> None:
        self._following = True
        self._tell("start")

    def revive(self) -> None:
        """Start another writer if this one died, a few times; it finds in the files what to do."""
        if self._process.poll() is None or not self._following or self._starts >= MOST_STARTS:
            return
        log.warning(
            "MLflow's writer ended (exit %s); another one goes on", self._process.returncode
        )
        with suppress(TrackingError):
            self._end()
            self._process = self._begin()
            self._tell("start")

    def close(self, interrupted: bool) -> None:
        """Wait until all is written, or for as long as that is any use."""
        if not interrupted:
            self.revive()
        self._tell(["close", interrupted])
        try:
            self._process.wait(2 * INTERRUPTED_SECONDS if interrupted else None)
        except subprocess.TimeoutExpired:
            log.warning("MLflow's writer does not end; `raygrid sync` brings what is missing")
        finally:
            if self._process.poll() not in (0, None) and self._following:
                log.warning("MLflow's writer ended early; `raygrid sync` brings what is missing")
            self._following = False
            self._end()

    def _end(self) -> None:
        self._process.kill()
        with suppress(BrokenPipeError), self._process:  # closes the pipes
            pass

    def _tell(self, word: Any) -> None:
        assert self._process.stdin is not None
        with self._lock, suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(json.dumps(word) + "\n")
            self._process.stdin.flush()


def serve() -> None:
    """Follow the run that the first line of the standard input names, until a line says `close`.

    The input ends without that line if the driver died: what it left is written all the same.
    """
    lines = (json.loads(line) for line in sys.stdin)
    out, uri, every, wait = next(lines)
    try:
        writer = MlflowWriter(Path(out), uri, every, wait)  # which looks at a database itself
        if split_uri(uri).scheme in SERVER_SCHEMES:
            check_tracking(uri)
    except TrackingError as error:
        print(json.dumps(str(error)), flush=True)
        return
    print(json.dumps(None), flush=True)
    _close_stdout()
    if next(lines, None) != "start":
        return
    writer.start()
    last = next(lines, None)
    if last is None:  # the driver died without a word
        writer.finish("KILLED")
    else:
        writer.close(interrupted=last[1])


def _close_stdout() -> None:
    """Print into the void from now on: the driver reads no more, and who fills a pipe waits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
