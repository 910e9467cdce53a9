"""What a submitted job sends home: tables, figures, page and rows, packed into lines of its log.

A log is all that Ray's Jobs API hands back. The lines are read from the whole log once the job has
ended, and a digest behind them tells whether they are all there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

from raygrid.core.errors import ClusterError
from raygrid.storage.results import REPORT_FILE, RESULTS_FILE, TABLES_MARK, ResultLog

INSIDE_JOB = "RAYGRID_INSIDE"
"""In the environment of a job."""
ARCHIVE_MARK, DIGEST_MARK = "raygrid-archive:", "sha256:"
PIECE_LETTERS = 4000  # letters of a line


def send_home(out: Path) -> None:
    """Inside a job: print tables, figures, page and rows, packed, for `unpack_home`."""
    if not os.environ.get(INSIDE_JOB):
        return
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in ("tables", "figures", REPORT_FILE, RESULTS_FILE):
            if (out / name).exists():
                archive.add(out / name, name)
    text = base64.b64encode(buffer.getvalue()).decode()
    pieces = [text[start : start + PIECE_LETTERS] for start in range(0, len(text), PIECE_LETTERS)]
    for piece in (*pieces, DIGEST_MARK + _digest(text)):
        print(ARCHIVE_MARK + piece, flush=True)


def print_log(text: str) -> None:
    """Print log text without the lines that carry what is sent home."""
    for line in text.splitlines(keepends=True):
        if not line.startswith(ARCHIVE_MARK):
            sys.stdout.write(line)
    sys.stdout.flush()


def unpack_home(log: str, folder: Path) -> None:
    """Take over what a job's log carries: its rows beside those of `folder`, tables, page.

    Of two rows of a key that one counts which `best` says. Paths that leave the folder are refused.
    Raises ClusterError, with nothing changed, if the log does not hold all of it.
    """
    lines = [
        line.removeprefix(ARCHIVE_MARK).strip()
        for line in log.splitlines()
        if line.startswith(ARCHIVE_MARK)
    ]
    if not lines:
        return
    text = "".join(lines[:-1])
    try:
        if lines[-1] != DIGEST_MARK + _digest(text):
            raise ValueError("a part is missing")
        packed = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise ClusterError(
            f"what the job has sent home is not whole ({error}); the same command fetches it again"
        ) from None
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".home-") as stage:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
            archive.extractall(stage, filter="data")
        _take_over(Path(stage), folder)


def _take_over(home: Path, folder: Path) -> None:
    ResultLog(folder / RESULTS_FILE).take_over(ResultLog(home / RESULTS_FILE).rows())
    for made in home.iterdir():
        if made.is_dir():
            shutil.copytree(made, folder / made.name, dirs_exist_ok=True)
            (folder / TABLES_MARK).unlink(
                missing_ok=True
            )  # these need not be of all rows that are here
        elif made.name == REPORT_FILE:
            shutil.copyfile(made, folder / REPORT_FILE)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
