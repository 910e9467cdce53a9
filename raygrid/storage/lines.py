"""Lines at the end of a file that others follow while it grows: whole ones, whatever was there."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import IO


def append_line(path: Path, line: str, durable: bool = True) -> None:
    """Append a line whole or not at all; a torn last line of a killed writer is closed off first.

    durable: wait until it is on the disk. Raises OSError, and leaves nothing of the line, where the
    disk is full.
    """
    content = f"{line}\n".encode()
    with path.open("ab+", buffering=0) as file:
        if file.tell() and not _ends_line(file):
            content = b"\n" + content
        _write_whole(file.fileno(), content, durable)


def _ends_line(file: IO[bytes]) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _write_whole(file: int, content: bytes, durable: bool) -> None:
    """Append all of it or nothing: what a full disk took of it is given back."""
    end = os.fstat(file).st_size
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(file, rest) :]
        if durable:
            os.fsync(file)
    except OSError:
        with suppress(OSError):
            os.ftruncate(file, end)
        raise
