"""A store that is mirrored to an object store: `s3://`, `gs://`, or a shared `file://` folder.

    <url>/artifacts/<kind>/<key>/<checksum>.safetensors   the arrays, named by their content
                                /meta.json                written last; names the file that counts
    <url>/results/<key>/<kind>/                           the same two: what a trial left on request
    <url>/results/<time>-<id>.jsonl                       rows in the order of their upload, never
                                                          changed afterwards

A reader without `meta.json` sees nothing, and replacing it is atomic, so writers on several
machines need no lock. Credentials come from where the cloud's own tools look for them
(environment, profile files, the machine's role), never from the address.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from raygrid.core.errors import StoreError
from raygrid.core.hashing import checksum, key_of
from raygrid.storage.bucket import ObjectStore
from raygrid.storage.meta import read_meta
from raygrid.storage.results import RESULTS_FILE, Json, ResultLog, best, precedence, read_row
from raygrid.storage.store import DATA_FILE, META_FILE, Bundle, Store, entry

SHARED_FOLDERS = ("artifacts", "results", "claims", "profiles")
"""Where files are kept there: a folder that is shared may hold those of others beside them."""
UNSENT_MARK = "unsent"
"""A mark in the folder of an entry that was put here and is not there yet."""
log = logging.getLogger(__name__)


def open_store(where: str | Path, cache: Path | None = None, reading: bool = False) -> Store:
    """A local store by path, a mirrored one by URL.

    cache: the local side of a mirrored store; by default a folder named after the URL in
    RAYGRID_CACHE or `~/.cache/raygrid`. reading: see `Store`. Raises StoreError.
    """
    text = str(where)
    if re.match(r"[a-z][a-z0-9+]+:/(?!/)", text):
        scheme, _, rest = text.partition(":/")
        raise StoreError(f"store {text} has one slash, an address has two: {scheme}://{rest}")
    if "://" not in text:
        return Store(where, reading)
    home = Path(os.environ.get("RAYGRID_CACHE") or Path.home() / ".cache" / "raygrid")
    return MirroredStore(text, cache or home / key_of(text)[:12], reading)


class MirroredStore(Store):
    """Reads what is here, else what is there; writes here, then there.

    A remote entry that is damaged counts as missing and is replaced by the next `put`. One of which
    the upload fails is marked here and sent by the next `send`, so that others get it after all.

    reading: of somebody who may have no right to write there; what is made stays here then.
    """

    MARKS = (UNSENT_MARK,)

    def __init__(self, url: str, root: Path | str, reading: bool = False) -> None:
        super().__init__(root)
        self.reading = reading
        self.remote = ObjectStore.open(url, reading)

    def has(self, kind: str, key: str) -> bool:
        """Whether everybody has it: what is here and was not uploaded is still to be sent."""
        here = super().has(kind, key) and not self._unsent(kind, key).exists()
        return here or self.remote.size(_meta(kind, key)) is not None

    def meta(self, kind: str, key: str) -> Json | None:
        return super().meta(kind, key) or self._remote_meta(kind, key)

    def _load(
        self, kind: str, key: str, load: Callable[[Path], dict[str, Any]]
    ) -> tuple[dict[str, Any], Json] | None:
        found = super()._load(kind, key, load)
        if found is None and self._bring(kind, key):
            found = super()._load(kind, key, load)
        return found

    def put(self, kind: str, key: str, bundle: Bundle) -> None:
        super().put(kind, key, bundle)
        self._upload(kind, key)

    def send(self, kind: str, key: str) -> bool:
        found = self._unsent(kind, key).exists()  # no request where nothing is left to do
        if found:
            self._upload(kind, key)
        return found

    def _upload(self, kind: str, key: str) -> None:
        folder = self.path(kind, key)
        mine = self._meta(kind, key)
        with self._writing():
            if not self._is_whole(kind, key):
                self.remote.upload(folder / DATA_FILE, _data(kind, key, mine))
                self.remote.write(_meta(kind, key), (folder / META_FILE).read_bytes())
            with suppress(OSError):  # asked again, which changes nothing
                self._unsent(kind, key).unlink()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """For changes there, which somebody who only reads can do without."""
        try:
            yield
        except StoreError as error:
            if not self.reading:
                raise
            log.warning("%s; that is left as it is", error)

    def _unsent(self, kind: str, key: str) -> Path:
        """A file that is there as long as an entry has not been uploaded."""
        return self.path(kind, key) / UNSENT_MARK

    def names(self, kind: str) -> set[str]:
        return super().names(kind) | set(self.remote.folders(f"artifacts/{kind}"))

    def drop(self, kind: str, key: str) -> None:
        super().drop(kind, key)
        with self._writing():
            self.remote.remove(entry(kind, key))

    def sweep(self) -> None:
        """Remove what killed uploads left there and nobody has written to for a day."""
        try:
            self.remote.sweep(SHARED_FOLDERS)
        except (StoreError, OSError) as error:  # no run has to end for want of tidiness
            log.warning("%s; what killed uploads left there stays", error)

    def results(self, path: Path | None = None) -> MirroredLog:
        return MirroredLog(path or self.root / RESULTS_FILE, self.remote)

    def _remote_meta(self, kind: str, key: str) -> Json | None:
        content = self.remote.read(_meta(kind, key))
        try:
            return None if content is None else read_meta(entry(kind, key), content)
        except ValueError as error:
            log.warning("%s %s in %s is damaged (%s)", kind, key, self.remote.url, error)
            return None

    def _is_whole(self, kind: str, key: str) -> bool:
        """Whether the remote entry is there with all its bytes."""
        meta = self._remote_meta(kind, key)
        return meta is not None and self.remote.size(_data(kind, key, meta)) == meta["bytes"]

    def _bring(self, kind: str, key: str) -> bool:
        """Copy a remote entry here; False if there is none or it is damaged (then withdrawn)."""
        meta = self._remote_meta(kind, key)
        if meta is None:
            return False
        target = self.path(kind, key)
        stage = self._stage(target)
        stage.mkdir(parents=True)
        try:
            for _ in range(2):  # a transfer may fail where the file is sound
                there = self.remote.download(_data(kind, key, meta), stage / DATA_FILE)
                if there and checksum(stage / DATA_FILE) == meta["sha256"]:
                    (stage / META_FILE).write_text(
                        json.dumps(meta, indent=1, sort_keys=True), encoding="utf-8"
                    )
                    self._publish(stage, target)
                    return True
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        log.warning("%s %s in %s is damaged; it is made again", kind, key, self.remote.url)
        with self._writing():
            self.remote.delete(_meta(kind, key))
        return False


def _meta(kind: str, key: str) -> str:
    return f"{entry(kind, key)}/{META_FILE}"


def _data(kind: str, key: str, meta: Json) -> str:
    return f"{entry(kind, key)}/{meta['sha256'][:32]}.safetensors"


class MirroredLog(ResultLog):
    """A result log whose rows are also uploaded, in parts of `every` seconds and at `close`.

    Opening merges what other machines uploaded, as `best` says which row of a key counts. A
    remote store that is away holds up nobody; the rows stay here and are uploaded later.
    """

    def __init__(self, path: Path, remote: ObjectStore, every: float = 30.0) -> None:
        super().__init__(path)
        self.remote = remote
        self.every = every
        self._next = time.monotonic() + every
        self._failures = 0
        self._waiting = self._merge()

    def _merge(self) -> list[Json]:
        """Take over remote rows that count more; returns the local ones that are missing there."""
        with ThreadPoolExecutor(16) as pool:
            parts = list(pool.map(self.remote.read, self.remote.names("results")))
        there = best(row for part in parts for row in _rows(part or b""))
        here = self.take_over(there.values())
        return [
            row
            for key, row in here.items()
            if key not in there or precedence(there[key]) < precedence(row)
        ]

    def append(self, row: Json) -> None:
        super().append(row)
        self._waiting.append(row)
        if time.monotonic() >= self._next:
            try:
                self.upload()
            except StoreError as error:
                self._failures += 1
                log.warning("%s; trying again later", error)
            self._next = time.monotonic() + min(600.0, self.every * 2**self._failures)

    def upload(self) -> None:
        """Upload the rows that wait, as one part; raises StoreError and keeps them."""
        if not self._waiting:
            return
        lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in self._waiting)
        name = f"results/{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.jsonl"
        self.remote.write(name, lines.encode())
        self._waiting.clear()
        self._failures = 0

    def close(self) -> None:
        """Upload the rest; raises StoreError that says where the rows are."""
        try:
            self.upload()
        except StoreError as error:
            raise StoreError(f"{error}; all rows are in {self.path}", error.passing) from None


def _rows(content: bytes) -> list[Json]:
    """The rows of a part; lines that are none are counted in the log."""
    rows, broken = [], 0
    for line in filter(bytes.strip, content.split(b"\n")):
        try:
            rows.append(read_row(line))
        except ValueError:
            broken += 1
    if broken:
        log.warning("%d broken lines in the results of the remote store are not used", broken)
    return rows
