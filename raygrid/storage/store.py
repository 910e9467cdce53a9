"""What lasts: artifacts under their content key, and the results of trials.

    <root>/artifacts/<kind>/<key>/data.safetensors   arrays, no pickle
                                 /meta.json          checksum, shapes, provenance, seconds
    <root>/results.jsonl                             one finished trial a line: the truth
    <root>/results/<key>/<kind>/                     the same two: what a trial left on request

An entry exists once `meta.json` does; it is written last. A damaged entry is moved aside and
counts as missing, so it is made again.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from raygrid.core.errors import StoreError, may_pass
from raygrid.core.hashing import checksum
from raygrid.core.options import LEFT_BY_TRIALS
from raygrid.core.text import DAY
from raygrid.storage.bucket import STAGE_MARK
from raygrid.storage.meta import check_tensors, describe, read_meta
from raygrid.storage.results import RESULTS_FILE, Json, ResultLog

if TYPE_CHECKING:  # reading raw arrays must not cost the import of torch
    import numpy as np
    from torch import Tensor

GONE_ERRORS = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""What reading an entry raises of which a part is missing or is something else."""
DATA_FILE, META_FILE = "data.safetensors", "meta.json"
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bundle:
    """The content of an artifact: named tensors (CPU) and JSON facts about them."""

    tensors: Mapping[str, Tensor]
    facts: Json = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self.tensors.values())


LOCK_FILE = ".driver.lock"
"""In the folder of a run, held by its driver."""
_made: list[Path] = []
"""Folders that this process made for stores and runs."""


def make_folder(path: Path) -> None:
    """Make a folder with those above it, to be taken away again if nothing is written to them."""
    _made.extend(each for each in (path, *path.parents) if not each.exists())
    path.mkdir(parents=True, exist_ok=True)


def remove_unused() -> None:
    """Take away the folders that were made here and that nothing was written to but a lock.

    One whose lock is held stays: another grid, of this process maybe, has just begun in it.
    """
    for folder in sorted(_made, key=lambda path: -len(path.parts)):
        with suppress(OSError, Timeout):
            if [path.name for path in folder.iterdir()] == [LOCK_FILE]:
                with FileLock(folder / LOCK_FILE, timeout=0):
                    (folder / LOCK_FILE).unlink()
            folder.rmdir()  # of empty folders only
    _made[:] = [folder for folder in _made if folder.exists()]


def entry(kind: str, key: str) -> str:
    """The folder of an entry below the root."""
    return f"results/{key}/{kind}" if kind in LEFT_BY_TRIALS else f"artifacts/{kind}/{key}"


class Store:
    """Artifacts in a local folder; `mirrored.MirroredStore` mirrors one to an object store.

    reading: of somebody who looks at results and may have no right to write; the folder is made
    when something is put. Otherwise StoreError is raised for one that cannot be written.
    """

    MARKS: ClassVar[tuple[str, ...]] = ()
    """The names of empty files that a new entry begins with."""

    def __init__(self, root: Path | str, reading: bool = False) -> None:
        self.root = Path(root).absolute()
        if not reading:
            self._prepare()

    def _prepare(self) -> None:
        """Make the folder and write to it, before a grid finds out that it cannot."""
        try:
            make_folder(self.root)
            probe = self.root / f".probe-{uuid.uuid4().hex}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            why = f"store {self.root} is not writable: {error.strerror}"
            raise StoreError(why, may_pass(error)) from None

    def path(self, kind: str, key: str) -> Path:
        return self.root / entry(kind, key)

    def has(self, kind: str, key: str) -> bool:
        return (self.path(kind, key) / META_FILE).exists()

    def meta(self, kind: str, key: str) -> Json | None:
        """The facts of an entry without its arrays, or None."""
        try:
            return self._meta(kind, key)
        except (OSError, ValueError):
            return None

    def _meta(self, kind: str, key: str) -> Json:
        return read_meta(entry(kind, key), (self.path(kind, key) / META_FILE).read_bytes())

    def get(self, kind: str, key: str) -> Bundle | None:
        """Load an entry, memory-mapped; None if it is missing or was damaged (then moved aside).

        Raises StoreError where it may be sound and cannot be read now.
        """
        from safetensors.torch import load_file

        found = self._load(kind, key, load_file)
        return None if found is None else Bundle(*found)

    def arrays(self, kind: str, key: str) -> tuple[dict[str, np.ndarray], Json] | None:
        """The same as numpy arrays and facts, without importing torch."""
        from safetensors.numpy import load_file

        return self._load(kind, key, load_file)

    def _load(
        self, kind: str, key: str, load: Callable[[Path], dict[str, Any]]
    ) -> tuple[dict[str, Any], Json] | None:
        folder = self.path(kind, key)
        if not folder.exists():
            return None
        try:
            meta = self._meta(kind, key)
            if checksum(folder / DATA_FILE) != meta["sha256"]:
                raise ValueError("checksum differs")
            tensors = load(folder / DATA_FILE)
            check_tensors(meta, tensors)
        except (*GONE_ERRORS, ValueError, LookupError, TypeError, SafetensorError) as error:
            self._set_aside(folder, error)
            return None
        except OSError as error:  # too many open files, a network away: no fault of the entry
            raise StoreError(f"cannot read {folder}: {error}", may_pass(error)) from error
        except RuntimeError as error:  # torch's word for the same
            raise StoreError(f"cannot read {folder}: {error}", passing=True) from error
        return tensors, meta["facts"]

    def put(self, kind: str, key: str, bundle: Bundle) -> None:
        """Write an entry under a temporary name, then rename it. A second writer changes nothing.

        Raises StoreError when the disk is full or the folder cannot be written.
        """
        from safetensors.torch import save_file

        target = self.path(kind, key)
        stage = self._stage(target)
        try:
            stage.mkdir(parents=True)
            save_file(_apart(bundle.tensors), stage / DATA_FILE)
            text = describe(entry(kind, key), stage / DATA_FILE, bundle.tensors, bundle.facts)
            (stage / META_FILE).write_text(text, encoding="utf-8")
            for name in self.MARKS:
                (stage / name).touch()
            self._publish(stage, target)
        except (OSError, SafetensorError) as error:
            why = f"cannot write {kind} {key} to {self.root}: {error}"
            raise StoreError(why, may_pass(error)) from error
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def send(self, kind: str, key: str) -> bool:
        """Bring an entry to where others look for it, if its `put` could not; whether it had to."""
        return False

    @staticmethod
    def _stage(target: Path) -> Path:
        """A new name beside an entry that is to be written.

        What has not been written to for a day is of killed writers, and is removed.
        """
        with suppress(OSError):
            for stage in target.parent.glob(f"{STAGE_MARK}*"):
                if time.time() - _touched(stage) > DAY:
                    shutil.rmtree(stage, ignore_errors=True)
        return target.with_name(f"{STAGE_MARK}{uuid.uuid4().hex}")

    def _publish(self, stage: Path, target: Path) -> None:
        try:
            os.rename(stage, target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise

    def names(self, kind: str) -> set[str]:
        """The names of all entries of a kind, also of those that are damaged or half written."""
        return {path.name for path in (self.root / "artifacts" / kind).glob("*")}

    def drop(self, kind: str, key: str) -> None:
        """Remove an entry; nothing happens if it is not there."""
        shutil.rmtree(self.path(kind, key), ignore_errors=True)

    def lock(self, key: str) -> FileLock:
        """Held by the one process of this machine that makes `key`."""
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{key}.lock")

    @staticmethod
    def _set_aside(folder: Path, error: Exception) -> None:
        aside = folder.with_name(f"{folder.name}.damaged-{uuid.uuid4().hex[:8]}")
        try:
            os.rename(folder, aside)
        except FileNotFoundError:  # another process was faster
            return
        except OSError as refused:
            why = f"{folder} is damaged ({error}) and cannot be moved aside: {refused.strerror}"
            raise StoreError(why) from None
        log.warning("%s is damaged (%s); it is made again", folder, error)
        with suppress(OSError):  # what is no folder has no room for a note
            (aside / "why.txt").write_text(f"{error}\n", encoding="utf-8")

    def results(self, path: Path | None = None) -> ResultLog:
        """The result log, in the store's folder or at `path`."""
        return ResultLog(path or self.root / RESULTS_FILE)


def _touched(folder: Path) -> float:
    """When something was last written in a folder, in seconds since 1970."""
    return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors of which no two share memory, as the file format wants them."""
    out, places = {}, set()
    for name, tensor in tensors.items():
        plain = tensor.contiguous()
        place = plain.untyped_storage().data_ptr()
        out[name] = plain.clone() if place in places else plain
        places.add(place)
    return out


def as_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict that owns its memory (arrays from a store or object store are read-only)."""
    return {name: tensor.clone() for name, tensor in tensors.items()}
