"""No trial runs in two drivers, and no dead driver stands in the way."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raygrid.core.errors import ClaimedError, ClaimLost, StoreError
from raygrid.storage import claims
from raygrid.storage.claims import Claim, claimed, claimed_keys, shared_side
from raygrid.storage.machine import facts
from raygrid.storage.mirrored import ObjectStore, open_store

Maker = Callable[..., Claim]


@pytest.fixture(params=["folder", "url"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Maker:
    """Claims of quick drivers on one store, each with a local side of its own."""
    place = tmp_path / "store" if request.param == "folder" else (tmp_path / "far").as_uri()

    def claim(*keys: str, beat: float = 0.02) -> Claim:
        name = f"cache{len(list(tmp_path.iterdir()))}"
        files = shared_side(open_store(place, tmp_path / name))
        return Claim(files, frozenset(keys), beat=beat, dead=0.5)

    return claim


in_a_folder = pytest.mark.parametrize("make", ["folder"], indirect=True)
"""Of tests that wait for a clock: what is decided by it is decided alike in every store."""


def notes(files: ObjectStore) -> list[str]:
    return files.names("claims")


def test_a_second_driver_of_a_trial_is_refused_until_the_first_is_through(make: Maker) -> None:
    first, second = make("x", "y"), make("y", "z")
    first.take()
    with pytest.raises(StoreError, match=rf"works on 1 of these trials \(process {os.getpid()}"):
        second.take()
    assert len(notes(first.files)) == 1
    first.release()
    second.take()
    second.release()
    assert notes(first.files) == []


def test_drivers_of_other_trials_work_side_by_side(make: Maker) -> None:
    first, second = make("x"), make("y")
    first.take()
    second.take()
    first.release()
    second.release()


@in_a_folder
def test_a_driver_of_another_machine_is_dead_when_its_beat_stands_still(
    make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, heir = make("x", beat=60), make("x")
    silent.take()
    monkeypatch.setattr(claims, "machine", lambda: "elsewhere")
    heir.take()
    assert notes(heir.files) == [heir.name]
    heir.release()


def test_a_killed_driver_of_this_machine_is_dead_at_once(make: Maker) -> None:
    heir = make("x")
    heir.dead = 60
    corpse = subprocess.Popen([sys.executable, "-c", ""])
    corpse.wait()
    host = socket.gethostname()
    note = {"host": host, "pid": corpse.pid, "beat": 1, "keys": ["x"]}
    heir.files.write("claims/corpse.json", json.dumps(note).encode())
    heir.files.write("claims/torn.json", b'{"ho')
    heir.take()
    heir.release()


def started(store: Path) -> subprocess.Popen[str]:
    """Another process that holds a claim in this store."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, str(store)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "taken\n"
    return process


def test_a_killed_driver_is_dead_before_anybody_has_waited_for_it(tmp_path: Path) -> None:
    """Its parent lives on, as a shell script or a container's first process may: it is listed."""
    heir = Claim(shared_side(open_store(tmp_path)), frozenset(["x"]), dead=60)
    driver = started(tmp_path)
    driver.kill()
    os.waitid(os.P_PID, driver.pid, os.WEXITED | os.WNOWAIT)
    assert facts(driver.pid)[0] == "Z"
    began = time.monotonic()
    heir.take()
    assert time.monotonic() - began < 10
    assert notes(heir.files) == [heir.name]
    heir.release()
    driver.communicate()


def test_a_note_that_the_store_kept_is_no_driver_in_the_same_process(
    make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver took itself for another one that lives, and refused its own trials."""
    first, again = make("x"), make("x")
    first.take()
    with monkeypatch.context() as away:
        away.setattr(ObjectStore, "delete", refuse)
        first.release()
        assert first._alive is not None
        first._alive.join()
    assert notes(first.files) == [first.name]
    assert claimed_keys(again.files, ["x"], watch=True) == set()
    again.take()
    with pytest.raises(StoreError, match=rf"process {os.getpid()} on"):
        first.take()
    again.release()


def refuse(files: ObjectStore, name: str, *_: bytes) -> None:
    raise StoreError(f"cannot touch {name}: the store is away", passing=True)


def test_a_note_that_could_not_be_written_is_not_held(
    make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = make("x")
    with monkeypatch.context() as away:
        away.setattr(ObjectStore, "write", refuse)
        with pytest.raises(StoreError, match="the store is away"):
            claim.take()
    assert claim.name not in claims._held


def test_a_beat_that_was_long_under_way_brings_no_lost_note_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It landed after another driver had taken the note for dead, and both went on."""
    monkeypatch.setattr(claims, "_here", lambda note: False)
    files = shared_side(open_store(tmp_path / "store"))
    slow, heir = (Claim(files, frozenset(["x"]), beat=0.1, dead=0.6) for _ in range(2))
    slow.take()
    under_way, land, write = threading.Event(), threading.Event(), ObjectStore.write

    def late(self: ObjectStore, name: str, content: bytes) -> None:
        if name == slow.name and not under_way.is_set():
            under_way.set()
            land.wait(30)
        write(self, name, content)

    monkeypatch.setattr(ObjectStore, "write", late)
    assert under_way.wait(30)
    heir.take()
    land.set()
    assert slow._alive is not None
    slow._alive.join(30)
    with pytest.raises(ClaimLost, match="another one took over"):
        slow.check()
    heir.check()
    assert notes(files) == [heir.name]
    heir.release()


def test_of_many_that_start_together_one_at_most_runs(make: Maker) -> None:
    together = [make("x") for _ in range(4)]
    taken: list[Claim] = []

    def attempt(claim: Claim) -> None:
        try:
            claim.take()
        except StoreError:
            return
        taken.append(claim)

    threads = [threading.Thread(target=attempt, args=(claim,)) for claim in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) <= 1
    for claim in taken:
        claim.release()


def test_the_block_holds_the_claim(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with claimed(store, ["x"]):
        assert len(notes(shared_side(store))) == 1
    assert notes(shared_side(store)) == []


ODD_CLAIMS = [
    b"null",
    b"[]",
    b"{}",
    b"\xff",
    b"[" * 100_000,
    b'{"host": 3, "pid": "x", "beat": null}',
    b'{"host": "h", "pid": 1, "beat": 1, "keys": 5}',
    b'{"pid": 1, "beat": 1, "keys": ["x"]}',
]


@pytest.mark.parametrize("content", ODD_CLAIMS, ids=range(len(ODD_CLAIMS)))
def test_a_malformed_claim_is_removed_with_a_line(
    make: Maker, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """R4: each of these ended the start with a traceback, or stayed for ever."""
    heir = make("x")
    heir.files.write("claims/odd.json", content)
    heir.take()
    assert notes(heir.files) == [heir.name]
    assert "claims/odd.json" in caplog.text
    assert "is no claim; it is removed" in caplog.text
    heir.release()


def elsewhere(heir: Claim, number: int) -> None:
    note = {"host": f"node{number}", "boot": "", "pid": 1, "born": "", "beat": 1, "keys": ["x"]}
    heir.files.write(f"claims/dead{number}.json", json.dumps(note).encode())


@in_a_folder
def test_claims_of_dead_hosts_are_watched_together_and_said(
    make: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    """R6: they took 40 s each, one after another, without a word."""
    heir = make("x")
    for number in range(4):
        elsewhere(heir, number)
    caplog.set_level(logging.WARNING)
    began = time.monotonic()
    heir.take()
    took = time.monotonic() - began
    assert heir.dead <= took < 3 * heir.dead
    assert "4 claims of drivers on node0, node1, node2, node3" in caplog.text
    assert notes(heir.files) == [heir.name]
    heir.release()


@in_a_folder
def test_one_of_many_silent_drivers_that_lives_is_enough(make: Maker) -> None:
    heir = make("x")
    heir.dead = 20.0
    for number in range(3):
        elsewhere(heir, number)

    def beat() -> None:
        time.sleep(0.3)
        note = json.loads(heir.files.read("claims/dead1.json") or b"")
        heir.files.write("claims/dead1.json", json.dumps({**note, "beat": 2}).encode())

    thread = threading.Thread(target=beat)
    thread.start()
    rival = heir._rival()
    thread.join()
    assert rival is not None
    assert rival["host"] == "node1"


@in_a_folder
def test_a_silent_process_of_this_machine_is_not_dead(make: Maker) -> None:
    """R5: stopped for longer than a note may be silent, it was taken for dead."""
    sleeper, heir = make("x", beat=60), make("x")
    sleeper.take()
    time.sleep(1.2 * heir.dead)
    with pytest.raises(StoreError, match=f"process {os.getpid()} on"):
        heir.take()
    sleeper.release()


def test_a_number_of_a_process_that_was_used_again_is_not_the_driver(make: Maker) -> None:
    heir = make("x")
    heir.dead = 60
    host, _, boot = claims.machine().partition(" ")
    note = {"host": host, "boot": boot, "pid": os.getpid(), "born": "1", "beat": 1, "keys": ["x"]}
    heir.files.write("claims/older.json", json.dumps(note).encode())
    heir.take()
    heir.release()


SLEEPER = """
import sys
from raygrid.core.errors import ClaimLost
from raygrid.storage.claims import Claim, shared_side
from raygrid.storage.store import Store
claim = Claim(shared_side(Store(sys.argv[1])), frozenset(["x"]), beat=60, dead=60.1)
claim.take()
print("taken", flush=True)
input()  # stopped here
try:
    claim.check()
    print("it goes on")
except ClaimLost as error:
    print(error)
"""


def test_a_driver_that_slept_looks_before_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R5: both ran on; the first never learned that it had lost its claim."""
    heir = Claim(shared_side(open_store(tmp_path)), frozenset(["x"]), dead=0.5)
    sleeper = started(tmp_path)
    sleeper.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(claims, "machine", lambda: "elsewhere")
    heir.take()
    sleeper.send_signal(signal.SIGCONT)
    said, _ = sleeper.communicate("\n", timeout=60)
    assert "another one took over its trials" in said
    assert notes(heir.files) == [heir.name]
    heir.release()


@in_a_folder
def test_a_driver_notices_at_its_next_beat_that_its_note_is_gone(make: Maker) -> None:
    claim = make("x")
    claim.take()
    claim.files.delete(claim.name)
    end = time.monotonic() + 10
    while time.monotonic() < end and not claim._lost:
        time.sleep(0.01)
    with pytest.raises(ClaimLost, match="another one took over"):
        claim.check()
    assert notes(claim.files) == []


def test_a_note_that_is_still_being_written_is_nobodys(tmp_path: Path) -> None:
    """It was taken for a damaged one and removed, and its writer ended with an error."""
    files = shared_side(open_store(tmp_path / "store"))
    half = tmp_path / "store" / "claims" / "abc.json.tmp-1234"
    half.parent.mkdir()
    half.write_text('{"ho')
    claim = Claim(files, frozenset(["x"]))
    claim.take()
    claim.release()
    assert half.exists()


def test_of_two_that_watch_a_dead_note_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first did not beat while it watched, so the second took it for dead as well."""
    monkeypatch.setattr(claims, "_here", lambda note: False)
    files = shared_side(open_store(tmp_path / "store"))
    dead = {"host": "gone", "boot": "b", "pid": 1, "born": "1", "beat": 7, "keys": ["x"]}
    files.write("claims/dead.json", json.dumps(dead).encode())
    first, second = (Claim(files, frozenset(["x"]), beat=0.1, dead=0.6) for _ in range(2))
    errors: list[Exception] = []

    def late() -> None:
        time.sleep(0.2)
        try:
            second.take()
        except ClaimedError as error:
            errors.append(error)

    thread = threading.Thread(target=late)
    thread.start()
    first.take()
    thread.join()
    time.sleep(0.3)
    first.check()
    assert len(errors) == 1
    assert notes(files) == [first.name]
    first.release()


def test_where_nobody_knows_when_a_process_began_its_beat_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS does not tell: after a restart another process had the dead driver's number."""
    monkeypatch.setattr(claims, "born", lambda pid: "")
    files = shared_side(open_store(tmp_path / "store"))
    note = {"host": socket.gethostname(), "boot": "", "pid": os.getpid(), "born": ""}
    files.write("claims/old.json", json.dumps({**note, "beat": 3, "keys": ["x"]}).encode())
    heir, third = (Claim(files, frozenset(["x"]), beat=0.05, dead=0.4) for _ in range(2))
    heir.take()
    with pytest.raises(ClaimedError, match="another raygrid run works on 1 of these trials"):
        third.take()
    heir.release()


def test_a_claim_that_the_beat_has_lost_stays_lost_for_the_driver(
    make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked the store meanwhile took the loss back."""
    claim = make("x")
    claim.take()
    size = ObjectStore.size

    def lost_meanwhile(files: ObjectStore, name: str) -> int | None:
        claim._lost = True
        return size(files, name)

    claim._written = 0.0
    monkeypatch.setattr(ObjectStore, "size", lost_meanwhile)
    with pytest.raises(ClaimLost):
        claim.check()
    claim.release()
