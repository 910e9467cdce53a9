"""No trial runs in two drivers, and no dead driver stands in the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from raygrid.core.errors import StoreError
from raygrid.storage import leases as claims
from raygrid.storage.leases import Lease, leased, shared_side
from raygrid.storage.mirrored import ObjectStore, open_store

Maker = Callable[..., Lease]


@pytest.fixture(params=["folder", "url"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Maker:
    """Claims of quick drivers on one store, each with a local side of its own."""
    place = tmp_path / "store" if request.param == "folder" else (tmp_path / "far").as_uri()

    def claim(*keys: str, beat: float = 0.02) -> Lease:
        name = f"cache{len(list(tmp_path.iterdir()))}"
        files = shared_side(open_store(place, tmp_path / name))
        return Lease(files, frozenset(keys), beat=beat, dead=0.5)

    return claim


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


def test_a_driver_of_another_machine_is_dead_when_its_beat_stands_still(
    make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, heir = make("x", beat=60), make("x")
    silent.take()
    monkeypatch.setattr(claims.socket, "gethostname", lambda: "elsewhere")
    heir.take()
    assert notes(heir.files) == [heir.name]
    heir.release()


def test_a_killed_driver_of_this_machine_is_dead_at_once(make: Maker) -> None:
    heir = make("x")
    heir.dead = 60
    corpse = subprocess.Popen([sys.executable, "-c", ""])
    corpse.wait()
    host = claims.socket.gethostname()
    note = {"host": host, "pid": corpse.pid, "beat": 1, "keys": ["x"]}
    heir.files.write("claims/corpse.json", json.dumps(note).encode())
    heir.files.write("claims/torn.json", b'{"ho')
    heir.take()
    heir.release()


def test_of_many_that_start_together_one_at_most_runs(make: Maker) -> None:
    together = [make("x") for _ in range(4)]
    taken: list[Lease] = []

    def attempt(claim: Lease) -> None:
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
    with leased(store, ["x"]):
        assert len(notes(shared_side(store))) == 1
    assert notes(shared_side(store)) == []
