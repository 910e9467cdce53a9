"""Which driver runs a trial: a note in the shared store, so that two never run the same one.

    <store>/claims/<run>.json    who, the trials, and a beat that counts up while the driver lives

A driver writes its note first and looks for others afterwards, so of two that start together at
least one sees the other. No clock of another machine is trusted: a note is dead when its beat
stands still while this driver watches, or when its process was of this machine and is gone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from raygrid.core.errors import StoreError
from raygrid.storage.bucket import ObjectStore
from raygrid.storage.mirrored import MirroredStore
from raygrid.storage.store import Store

log = logging.getLogger(__name__)
BEAT, DEAD = 10.0, 40.0  # seconds between beats; of silence after which a note counts as dead
TRIES = 3


@contextlib.contextmanager
def leased(store: Store, keys: Iterable[str]) -> Iterator[None]:
    """Hold these trials while the block lasts; StoreError if a living driver runs one of them."""
    claim = Lease(shared_side(store), frozenset(keys))
    claim.take()
    try:
        yield
    finally:
        claim.release()


def shared_side(store: Store) -> ObjectStore:
    """The files that all drivers of a store see."""
    if isinstance(store, MirroredStore):
        return store.remote
    from pyarrow.fs import LocalFileSystem

    return ObjectStore(str(store.root), LocalFileSystem(), str(store.root))


@dataclass
class Lease:
    """One driver's note. beat, dead: in seconds."""

    files: ObjectStore
    keys: frozenset[str]
    beat: float = BEAT
    dead: float = DEAD
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    _beats: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        return f"claims/{self.run}.json"

    def take(self) -> None:
        """Write the note, make sure that it stands alone, and keep it alive."""
        for attempt in range(TRIES):
            self._write()
            rival = self._rival()
            if rival is None:
                threading.Thread(target=self._live, name="claim", daemon=True).start()
                return
            self.files.delete(self.name)
            if attempt + 1 == TRIES:
                raise StoreError(self._refusal(rival))
            time.sleep(random.uniform(0, 2.0 * attempt + 0.5))  # of two, one comes first

    def _refusal(self, rival: dict[str, Any]) -> str:
        return (
            f"another raygrid run works on {len(self.keys & set(rival['keys']))} of these trials "
            f"(process {rival['pid']} on {rival['host']}); run this again when it is through, or "
            f"give another --store"
        )

    def release(self) -> None:
        """Take the note away."""
        self._over.set()
        with contextlib.suppress(StoreError):
            self.files.delete(self.name)

    def _write(self) -> None:
        self._beats += 1
        note = {"host": socket.gethostname(), "pid": os.getpid(), "beat": self._beats}
        self.files.write(self.name, json.dumps({**note, "keys": sorted(self.keys)}).encode())

    def _live(self) -> None:
        while not self._over.wait(self.beat):
            try:
                self._write()
            except StoreError as error:
                log.warning("%s; trying again", error)
        with contextlib.suppress(StoreError):  # a beat may have crossed the release
            self.files.delete(self.name)

    def _rival(self) -> dict[str, Any] | None:
        """The note of a living driver that has one of these trials."""
        for name in self.files.names("claims"):
            note = self._read(name)
            if name != self.name and note and self.keys & set(note["keys"]):
                if self._lives(name, note):
                    return note
                self.files.delete(name)
        return None

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            note = json.loads(self.files.read(name) or b"null")
        except ValueError:
            return None
        return note if isinstance(note, dict) and {"keys", "beat", "pid"} <= set(note) else None

    def _lives(self, name: str, note: dict[str, Any]) -> bool:
        if note["host"] == socket.gethostname() and not _runs(note["pid"]):
            return False
        end = time.monotonic() + self.dead
        while time.monotonic() < end:
            time.sleep(min(1.0, self.dead / 10))
            now = self._read(name)
            if now is None:
                return False
            if now["beat"] != note["beat"]:
                return True
        return False


def _runs(pid: int) -> bool:
    """Whether a process of this machine lives."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
