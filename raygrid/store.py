"""What lasts: artifacts under their content key, and the results of trials.

    <root>/artifacts/<kind>/<key>/data.safetensors   arrays, no pickle
                                 /meta.json          checksum, shapes, provenance, seconds
    <root>/results.jsonl                             one finished trial a line: the truth
    <root>/results/<key>/                            files a trial left on request

An entry exists once `meta.json` does; it is written last. A damaged entry is moved aside and
counts as missing, so it is made again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from raygrid.errors import StoreError

DATA, META = "data.safetensors", "meta.json"
Json = dict[str, Any]


@dataclass(frozen=True)
class Bundle:
    """The content of an artifact: named tensors (CPU) and JSON facts about them."""

    tensors: Mapping[str, Tensor]
    facts: Json = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self.tensors.values())


class Store:
    """Artifacts in a local folder; `raygrid.remote.RemoteStore` mirrors one to an object store."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).absolute()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe-{uuid.uuid4().hex}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise StoreError(f"store {self.root} is not writable: {error.strerror}") from None

    def path(self, kind: str, key: str) -> Path:
        return self.root / "artifacts" / kind / key

    def has(self, kind: str, key: str) -> bool:
        return (self.path(kind, key) / META).exists()

    def meta(self, kind: str, key: str) -> Json | None:
        """The facts of an entry without its arrays, or None."""
        try:
            loaded: Json = json.loads((self.path(kind, key) / META).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return loaded

    def get(self, kind: str, key: str) -> Bundle | None:
        """Load an entry, memory-mapped; None if it is missing or was damaged (then moved aside)."""
        folder = self.path(kind, key)
        if not folder.exists():
            return None
        meta = self.meta(kind, key)
        try:
            if meta is None or checksum(folder / DATA) != meta["sha256"]:
                raise SafetensorError("checksum differs")
            return Bundle(load_file(folder / DATA), meta["facts"])
        except (OSError, KeyError, SafetensorError) as error:
            self._set_aside(folder, error)
            return None

    def put(self, kind: str, key: str, bundle: Bundle) -> None:
        """Write an entry under a temporary name, then rename it. A second writer changes nothing.

        Raises StoreError when the disk is full or the folder cannot be written.
        """
        target = self.path(kind, key)
        stage = target.with_name(f".tmp-{uuid.uuid4().hex}")
        try:
            stage.mkdir(parents=True)
            save_file({k: t.contiguous() for k, t in bundle.tensors.items()}, stage / DATA)
            meta = self._describe(stage / DATA, bundle)
            (stage / META).write_text(json.dumps(meta, indent=1, sort_keys=True))
            self._publish(stage, target)
        except (OSError, SafetensorError) as error:
            raise StoreError(f"cannot write {kind} {key} to {self.root}: {error}") from error
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def _publish(self, stage: Path, target: Path) -> None:
        try:
            os.rename(stage, target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise

    @staticmethod
    def _describe(data: Path, bundle: Bundle) -> Json:
        shapes = {k: [str(t.dtype), list(t.shape)] for k, t in bundle.tensors.items()}
        return {
            "sha256": checksum(data),
            "bytes": data.stat().st_size,
            "tensors": shapes,
            "facts": bundle.facts,
            "written": time.time(),
        }

    @staticmethod
    def _set_aside(folder: Path, error: Exception) -> None:
        aside = folder.with_name(f"{folder.name}.damaged-{uuid.uuid4().hex[:8]}")
        with suppress(FileNotFoundError):
            os.rename(folder, aside)
            (aside / "why.txt").write_text(f"{error}\n")

    def results(self, path: Path | None = None) -> ResultLog:
        """The result log, in the store's folder or at `path`."""
        return ResultLog(path or self.root / "results.jsonl")


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def key_of(value: Any) -> str:
    """A content key: 24 hex digits over the canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class ResultLog:
    """One JSON object a line, appended and flushed to disk; the last line of a key counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(f"{path}.lock")

    def append(self, row: Json) -> None:
        """Add a row durably; a torn last line of a killed writer is closed off first."""
        line = json.dumps(row, sort_keys=True) + "\n"
        try:
            with self._lock, self.path.open("ab+") as file:
                if file.tell() and not self._ends_line(file):
                    line = "\n" + line
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(f"cannot append to {self.path}: {error.strerror}") from error

    @staticmethod
    def _ends_line(file: Any) -> bool:
        file.seek(-1, os.SEEK_END)
        return bool(file.read(1) == b"\n")

    def rows(self) -> Iterator[Json]:
        """The latest row of each key, in the order in which keys first came."""
        latest: dict[str, Json] = {}
        with suppress(FileNotFoundError):
            for line in self.path.read_text().splitlines():
                with suppress(json.JSONDecodeError):
                    row = json.loads(line)
                    latest[row["key"]] = row
        yield from latest.values()

    def close(self) -> None:
        """The run is over; a mirrored log uploads what it still holds."""

    def done(self) -> set[str]:
        """Keys that need no further run: finished, diverged, or skipped."""
        return {row["key"] for row in self.rows() if row["status"] != "failed"}


def as_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict that owns its memory (arrays from a store or object store are read-only)."""
    return {name: torch.clone(tensor) for name, tensor in tensors.items()}
