"""Which driver runs a trial: a note in the shared store, so that two never run the same one.

    <store>/claims/<run>.json    who, the trials, and a beat that counts up while the driver lives

A driver writes its note first and looks for others afterwards, so of two that start together at
least one sees the other. No clock of another machine is trusted: its note is dead when its beat
stands still while this driver watches. A process of this machine is dead when it is gone, however
silent it was. A driver whose note was taken away, since it slept for too long, stops.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from raygrid.core.errors import ClaimedError, ClaimLost, StoreError
from raygrid.storage.bucket import ObjectStore
from raygrid.storage.machine import born, lives, machine
from raygrid.storage.mirrored import MirroredStore
from raygrid.storage.store import Store

log = logging.getLogger(__name__)
BEAT_SECONDS = 10.0  # between beats
DEAD_SECONDS = 40.0  # of silence after which a note counts as dead
CLAIM_TRIES = 3
Note = dict[str, Any]
_held: set[str] = set()
"""The names of the notes that drivers in this process hold."""


@contextlib.contextmanager
def claimed(store: Store, keys: Iterable[str]) -> Iterator[Claim]:
    """Hold these trials while the block lasts; StoreError if a living driver runs one of them.

    A driver that begins is also who looks for what killed uploads left in a shared folder.
    """
    claim = Claim(shared_side(store), frozenset(keys))
    claim.take()
    try:
        if isinstance(store, MirroredStore):
            store.sweep()
        yield claim
    finally:
        claim.release()


def shared_side(store: Store) -> ObjectStore:
    """The files that all drivers of a store see."""
    if isinstance(store, MirroredStore):
        return store.remote
    from pyarrow.fs import LocalFileSystem

    return ObjectStore(str(store.root), LocalFileSystem(), str(store.root))


@dataclass
class Claim:
    """One driver's note. beat, dead: in seconds."""

    files: ObjectStore
    keys: frozenset[str]
    beat: float = field(default_factory=lambda: BEAT_SECONDS)
    dead: float = field(default_factory=lambda: DEAD_SECONDS)
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    _beats: int = 0
    _alive: threading.Thread | None = None
    _written: float = 0.0  # by the clock on the wall, which goes on while a machine sleeps
    _lost: bool = False
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        return f"claims/{self.run}.json"

    def take(self) -> None:
        """Write the note, keep it alive, and make sure that it stands alone.

        Raises ClaimedError if another driver has one of these trials.
        """
        for attempt in range(CLAIM_TRIES):
            # It beats while it looks for others: watching dead notes takes as long as it takes
            # others to hold this one for dead.
            _held.add(self.name)
            try:
                self._write()
            except BaseException:
                self.release()
                raise
            self._over, self._lost = threading.Event(), False
            self._alive = threading.Thread(target=self._live, name="claim", daemon=True)
            self._alive.start()
            try:
                rival = self._rival()
            except BaseException:
                self.release()
                raise
            if rival is None and not self._lost:
                return
            self.release()
            self._alive.join()  # its last act is to remove the note
            if attempt + 1 == CLAIM_TRIES:
                gone = "another raygrid run has taken the claim of this one away; run this again"
                raise ClaimedError(gone if rival is None else self._refusal(rival))
            time.sleep(random.uniform(0, 2.0 * attempt + 0.5))  # of two, one comes first

    def _refusal(self, rival: Note) -> str:
        return (
            f"another raygrid run works on {len(self.keys & set(rival['keys']))} of these trials "
            f"(process {rival['pid']} on {rival['host']}); run this again when it is through, or "
            f"give another --store"
        )

    def check(self) -> None:
        """Raise ClaimLost if another driver has taken the note away.

        After a silence that others may have taken for death, the store is asked first.
        """
        if not self._lost and time.time() - self._written > self.dead - self.beat:
            with contextlib.suppress(StoreError):
                self._confirm()
        if self._lost:
            raise ClaimLost(
                "this run was silent for so long that another one took over its trials; what is "
                "finished is kept, run the same command again when the other is through"
            )

    def release(self) -> None:
        """Take the note away; one that the store keeps counts as dead, since nobody holds it."""
        self._over.set()
        _held.discard(self.name)
        with contextlib.suppress(StoreError):
            self.files.delete(self.name)

    def _write(self) -> None:
        self._beats += 1
        host, _, boot = machine().partition(" ")
        note = {"host": host, "boot": boot, "pid": os.getpid(), "born": born(os.getpid())}
        note |= {"beat": self._beats, "keys": sorted(self.keys)}
        self.files.write(self.name, json.dumps(note).encode())
        self._written = time.time()

    def _confirm(self) -> None:
        """Look whether the note is still there. If it is not, the claim is lost for good."""
        if not self._lost and self.files.size(self.name) is None:
            self._lost = True  # by two threads, neither of which takes it back

    def _live(self) -> None:
        alone = self._written  # when this note was last known not to have been taken for dead
        while not self._over.wait(self.beat) and not self._lost:
            try:
                self._confirm()
                if not self._lost:
                    self._write()
                if self._written - alone > self.dead - self.beat and self._overtaken():
                    self._lost = True
                alone = self._written
            except StoreError as error:
                log.warning("%s; trying again", error)
        with contextlib.suppress(StoreError):  # a beat may have crossed the release, or the heir
            self.files.delete(self.name)

    def _overtaken(self) -> bool:
        """Whether a driver that may have taken this note for dead has one of these trials.

        A beat that was long under way brings back a note which such a driver has removed. On this
        machine none is taken for dead whose process lives.
        """
        return any(_lives(name, note) is None for name, note in self.others())

    def _rival(self) -> Note | None:
        """The note of a living driver that has one of these trials; those of dead ones are removed.

        A wait for signs of life is said.
        """
        notes = dict(self.others())
        fates = {name: _lives(name, note) for name, note in notes.items()}
        silent = [note for name, note in notes.items() if fates[name] is None]
        if silent and True not in fates.values():
            log.warning(
                "%d claims of drivers on %s; they are removed unless one of them shows signs of "
                "life within %.0f s",
                *(len(silent), ", ".join(sorted({note["host"] for note in silent})), self.dead),
            )
        return next((note for _, note in self.living(notes)), None)

    def living(self, notes: Mapping[str, Note]) -> Iterator[tuple[str, Note]]:
        """Those notes whose drivers live, each as soon as that shows; the others are removed.

        All whose beat alone can tell are watched at the same time.
        """
        end = time.monotonic() + self.dead
        waiting = dict(notes)
        while waiting:
            over = time.monotonic() >= end
            for name, before in list(waiting.items()):
                now, fate = read_note(self.files.read(name) or b""), _lives(name, before)
                if now is not None and fate is None and now["beat"] == before["beat"] and not over:
                    continue
                del waiting[name]
                if now is None:  # its driver took it away
                    continue
                if fate or (fate is None and now["beat"] != before["beat"]):
                    yield name, now
                else:
                    self.files.delete(name)
            time.sleep(min(1.0, self.dead / 10) if waiting else 0)

    def others(self) -> Iterator[tuple[str, Note]]:
        """The notes with one of these trials; malformed ones are removed, which is said."""
        for name in self.files.names("claims"):
            content = None if name == self.name else self.files.read(name)
            if content is None:
                continue
            note = read_note(content)
            if note is None:
                log.warning("%s in %s is no claim; it is removed", name, self.files.url)
                self.files.delete(name)
            elif self.keys & set(note["keys"]):
                yield name, note


def claimed_keys(files: ObjectStore, keys: Iterable[str], watch: bool = False) -> set[str]:
    """Which of these trials other drivers claim.

    watch: believe no note whose beat stands still for `DEAD_SECONDS`; that of a dead driver is
    removed. Without it every note counts, as it does where there is other work to do.
    """
    asking = Claim(files, frozenset(keys))
    notes = dict(asking.others())
    if watch:
        notes = dict(asking.living(notes))
    return {key for note in notes.values() for key in note["keys"]} & asking.keys


def read_note(content: bytes) -> Note | None:
    """A driver's note, None for anything that is none. Older ones lack boot and born."""
    try:
        note = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(note, dict):
        return None
    note = {"boot": "", "born": "", **note}
    texts = all(isinstance(note.get(name), str) for name in ("host", "boot", "born"))
    numbers = all(type(note.get(name)) is int for name in ("pid", "beat")) and note["pid"] > 0
    keys = note.get("keys")
    listed = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    return note if texts and numbers and listed else None


def _lives(name: str, note: Note) -> bool | None:
    """Whether the driver of a note lives; None where its beat alone can tell.

    That is on another machine, and where a process has its number of which nobody knows when it
    began: it may be any other. In this process a driver lives as long as it holds its note.
    """
    if not _here(note):
        return None
    if not lives(note["pid"], note["born"]):
        return False
    if not note["born"]:
        return None
    return note["pid"] != os.getpid() or name in _held


def _here(note: Note) -> bool:
    """Whether a note is of this machine, by its name alone where the note says no more."""
    host, _, boot = machine().partition(" ")
    return note["host"] == host and note["boot"] in ("", boot)
