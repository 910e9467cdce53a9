"""A mirrored store: one machine's artifacts and rows are another's, whatever breaks between."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from raygrid.core.errors import StoreError
from raygrid.storage import mirrored
from raygrid.storage.bucket import ObjectStore
from raygrid.storage.checkpoints import CheckpointSlot
from raygrid.storage.claims import claimed
from raygrid.storage.mirrored import MirroredLog, MirroredStore, open_store
from raygrid.storage.store import DATA_FILE, META_FILE, Bundle, Store
from raygrid.trials.artifacts import BuildContext
from raygrid.trials.artifacts.build import build
from tests.ports import free_port

BUNDLE = Bundle({"x": torch.arange(6).view(2, 3), "y": torch.ones(2)}, {"note": "a"})
OTHER = Bundle({"x": torch.zeros(2, 3), "y": torch.ones(2)}, {"note": "b"})


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 server on the loopback interface with the bucket `grid`; gives its address."""
    from moto.server import ThreadedMotoServer

    keys = {"AWS_ACCESS_KEY_ID": "test-id", "AWS_SECRET_ACCESS_KEY": "test-secret"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**keys, "AWS_EC2_METADATA_DISABLED": "true"}.items():
            patch.setenv(name, value)
        port = free_port()
        server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
        server.start()
        from pyarrow.fs import S3FileSystem

        address = f"127.0.0.1:{port}"
        system = S3FileSystem(
            endpoint_override=address, scheme="http", region="us-east-1", allow_bucket_creation=True
        )
        system.create_dir("grid")
        yield address
        server.stop()


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place on either kind of object store."""
    if request.param == "file":
        return (tmp_path / "far away").as_uri()
    address = request.getfixturevalue("s3")
    return f"s3://grid/{tmp_path.name}?endpoint_override={address}&scheme=http&region=us-east-1"


Opener = Callable[[str], MirroredStore]


@pytest.fixture
def machine(url: str, tmp_path: Path) -> Opener:
    """Opens the store from a machine with a local side of its own."""

    def open_there(name: str) -> MirroredStore:
        store = open_store(url, tmp_path / name)
        assert isinstance(store, MirroredStore)
        store.remote = replace(store.remote, patience=(0.01,))
        return store

    return open_there


def same(found: Bundle | None, expected: Bundle) -> bool:
    if found is None or found.facts != expected.facts:
        return False
    return all(torch.equal(found.tensors[k], t) for k, t in expected.tensors.items())


def stored(store: MirroredStore) -> list[str]:
    """The names of an entry's files on the remote side, meta.json first."""
    return sorted(store.remote.names("artifacts/poison/k"), key=lambda n: not n.endswith(META_FILE))


def test_what_one_machine_makes_another_has(machine: Opener) -> None:
    first, second = machine("a"), machine("b")
    assert second.get("poison", "k") is None
    assert not second.has("poison", "k")
    first.put("poison", "k", BUNDLE)
    assert second.has("poison", "k")
    meta = second.meta("poison", "k")
    assert meta is not None
    assert meta["facts"] == {"note": "a"}
    assert not second.path("poison", "k").exists()  # facts alone cost no download
    assert same(second.get("poison", "k"), BUNDLE)
    assert Store(second.root).has("poison", "k")
    arrays = machine("c").arrays("poison", "k")  # as workers read it, without torch
    assert arrays is not None
    assert arrays[0]["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert not list(second.path("poison", "k").parent.glob(".tmp-*"))


def test_what_is_here_is_not_asked_for_there(machine: Opener) -> None:
    store = machine("a")
    store.put("poison", "k", BUNDLE)
    store.remote = None  # type: ignore[assignment]
    assert store.has("poison", "k")
    assert same(store.get("poison", "k"), BUNDLE)


def test_what_could_not_be_uploaded_is_sent_by_the_next_that_needs_it(
    machine: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was found here from then on, so that nobody ever brought it to the others."""
    store = machine("a")
    with monkeypatch.context() as away:
        away.setattr(ObjectStore, "upload", refuse)
        with pytest.raises(StoreError, match="cannot upload"):
            store.put("poison", "k", BUNDLE)
    again = machine("a")
    assert not again.has("poison", "k"), "others lack it, so it is a job"
    assert machine("b").get("poison", "k") is None
    assert brought(again) == (True, False)
    assert same(machine("c").get("poison", "k"), BUNDLE)
    again.remote = None  # type: ignore[assignment]
    assert again.has("poison", "k")
    assert brought(again) == (True, False), "what was sent costs no request"


def refuse(files: ObjectStore, *_: Any) -> None:
    raise StoreError("cannot upload: the store is away")


def brought(store: MirroredStore) -> tuple[bool, bool]:
    """Whether whoever needs the poison finds it, and whether it was made for that."""
    wanted: Any = SimpleNamespace(kind="poison", key="k", spent=())
    found, made = build(
        wanted, store, BuildContext(torch.device("cpu"), Path()), lambda need: BUNDLE
    )
    return same(found, BUNDLE), made


def test_a_second_writer_changes_nothing(machine: Opener) -> None:
    first, second = machine("a"), machine("b")
    first.put("poison", "k", BUNDLE)
    before = stored(first)
    second.put("poison", "k", OTHER)  # as another device may round differently
    assert stored(first) == before
    assert same(machine("c").get("poison", "k"), BUNDLE)


def test_writers_at_the_same_time_leave_one_whole_entry(machine: Opener) -> None:
    """Whoever wins, readers never meet the arrays of one with the checksum of another."""
    stores = [machine(str(i)) for i in range(4)]
    bundles = [Bundle({"x": torch.full((2000,), i)}, {"note": i}) for i in range(4)]
    seen: list[int] = []

    def read() -> None:
        for i in range(12):
            found = machine(f"reader{i}").get("poison", "k")
            if found is not None:
                seen.append(int(found.tensors["x"][0]) - int(found.facts["note"]))

    threads = [
        threading.Thread(target=s.put, args=("poison", "k", b))
        for s, b in zip(stores, bundles, strict=True)
    ]
    threads.append(threading.Thread(target=read))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) <= {0}
    assert machine("last").get("poison", "k") is not None


def test_a_reader_without_meta_sees_nothing(
    machine: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer dies between the arrays and meta.json."""
    first, second = machine("a"), machine("b")

    def die(self: ObjectStore, name: str, content: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "write", die)
        with pytest.raises(KeyboardInterrupt):
            first.put("poison", "k", BUNDLE)
    assert [name.rpartition(".")[2] for name in stored(second)] == ["safetensors"]
    assert not second.has("poison", "k")
    assert second.get("poison", "k") is None
    second.put("poison", "k", BUNDLE)
    assert same(machine("c").get("poison", "k"), BUNDLE)


@pytest.mark.parametrize("damage", ["flip", "cut", "lose_data", "garble_meta"])
def test_a_damaged_remote_entry_is_missing_and_is_made_again(
    machine: Opener, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = machine("a"), machine("b")
    first.put("poison", "k", BUNDLE)
    meta, data = stored(first)
    content = first.remote.read(data)
    assert content is not None
    if damage == "flip":
        first.remote.write(data, content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "cut":
        first.remote.write(data, content[:-4])
    elif damage == "lose_data":
        first.remote.delete(data)
    else:
        first.remote.write(meta, b"{")
    assert second.get("poison", "k") is None
    assert ("is made again" in caplog.text) == (damage != "garble_meta")
    second.put("poison", "k", BUNDLE)
    assert same(machine("c").get("poison", "k"), BUNDLE)


def test_a_damaged_local_entry_comes_back_from_there(machine: Opener) -> None:
    store = machine("a")
    store.put("poison", "k", BUNDLE)
    path = store.path("poison", "k") / DATA_FILE
    path.write_bytes(path.read_bytes()[:-4])
    assert same(store.get("poison", "k"), BUNDLE)
    assert len(list(path.parents[1].glob("k.damaged-*"))) == 1


def test_another_machine_goes_on_from_the_newest_checkpoint(machine: Opener) -> None:
    first, second = CheckpointSlot(machine("a"), "t"), CheckpointSlot(machine("b"), "t")
    for bundle in (OTHER, BUNDLE):
        first.save(bundle)
    assert same(second.load(), BUNDLE)
    second.save(OTHER)
    assert same(CheckpointSlot(machine("c"), "t").load(), OTHER)
    assert same(first.load(), OTHER), "its own copy is older"
    assert CheckpointSlot(machine("c"), "t.x").load() is None
    assert CheckpointSlot(machine("c"), "").load() is None


def test_checkpoints_leave_nothing(machine: Opener) -> None:
    store = machine("a")
    partial = CheckpointSlot(store, "t")
    for _ in range(3):
        partial.save(BUNDLE)
    assert store.remote.folders("artifacts/partial") == ["t.3"]
    partial.clear()
    assert store.remote.folders("artifacts/partial") == []
    assert not list((store.root / "artifacts" / "partial").iterdir())
    partial.clear()


def aged(path: Path, days: float) -> Path:
    """A file that was last written so long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(64))
    at = time.time() - days * 86_400
    os.utime(path, (at, at))
    return path


@pytest.mark.parametrize("url", ["file"], indirect=True)
def test_what_killed_uploads_left_is_removed_when_it_is_a_day_old(
    machine: Opener, tmp_path: Path
) -> None:
    """Half a file took its room for ever; one that is still being written is left alone."""
    store, far, stage = machine("a"), tmp_path / "far away", f".tmp-{'0123abcd' * 4}"
    store.put("poison", "k", BUNDLE)
    data = f"{stored(store)[1]}{stage}"
    dead = [aged(far / name, 2) for name in (data, f"results/1.jsonl{stage}", f".probe{stage}")]
    kept = [
        aged(far / f"artifacts/poison/growing/x.safetensors{stage}", 0.9),
        aged(far / "artifacts/poison/k/of_somebody.tmp-notes", 2),
        aged(far / f"of_others/x{stage}", 2),
    ]
    with claimed(store, ["t"]):
        assert [path.exists() for path in (*dead, *kept)] == [False] * 3 + [True] * 3
    assert same(machine("b").get("poison", "k"), BUNDLE)
    later = aged(far / data, 2)
    with claimed(machine("b"), ["t"]):
        assert later.exists(), "who begins on the same day does not look again"
    aged(far / ".swept", 1.1)
    with claimed(machine("b"), ["t"]):
        assert not later.exists()


def test_ages_of_stages_are_told_by_the_clock_of_the_files(
    machine: Opener, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine whose clock is days ahead every upload looked dead."""
    store = machine("a")
    place = tmp_path / "far away" / "artifacts" / "poison" / "k" / f"x.tmp-{'0' * 32}"
    if url.startswith("file"):
        aged(place, 0)
    ahead = time.time() + 1e6
    monkeypatch.setattr(time, "time", lambda: ahead)
    store.sweep()
    assert place.exists() == url.startswith("file")
    assert (store.remote.size(".swept") == 0) == url.startswith("file"), "buckets have no stages"


# The result log


def row(key: str, finished: float, status: str = "done") -> dict[str, Any]:
    return {"key": key, "spec": key, "finished": finished, "status": status}


def keys(log: Any) -> dict[str, float]:
    return {r["key"]: r["finished"] for r in log.rows()}


def test_rows_of_all_machines_come_together(machine: Opener) -> None:
    first = machine("a").results()
    first.append(row("x", 1.0, "failed"))
    first.append(row("y", 2.0))
    first.close()
    second = machine("b").results()
    assert keys(second) == {"x": 1.0, "y": 2.0}
    second.append(row("x", 3.0))
    second.append(row("z", 4.0))
    second.close()
    again = machine("a").results()
    assert keys(again) == {"x": 3.0, "y": 2.0, "z": 4.0}
    assert {row["key"] for row in again.rows()} == {"x", "y", "z"}


def test_rows_that_a_killed_driver_did_not_upload_are_uploaded_by_the_next(
    machine: Opener,
) -> None:
    machine("a").results().append(row("x", 1.0))  # never closed
    assert keys(machine("b").results()) == {}
    machine("a").results().close()
    assert keys(machine("b").results()) == {"x": 1.0}


def test_an_older_remote_row_does_not_replace_a_newer_one(machine: Opener) -> None:
    old = machine("a").results()
    old.append(row("x", 1.0))
    newer = machine("b").results()
    newer.append(row("x", 2.0))
    newer.close()
    old.close()  # uploaded later, finished earlier
    assert keys(machine("b").results()) == {"x": 2.0}
    assert keys(machine("c").results()) == {"x": 2.0}


def test_a_result_of_a_slow_clock_beats_a_failure_of_a_fast_one(machine: Opener) -> None:
    """Opened again, the machine that had run the trial took the failure for newer."""
    first = machine("a").results()
    first.append(row("x", 300.0, "failed"))
    first.close()
    second = machine("b").results()
    second.append(row("x", 200.0))
    second.close()
    for name in "abc":
        assert [each["status"] for each in machine(name).results().rows()] == ["done"]


def test_rows_are_uploaded_in_batches_while_a_run_goes_on(
    machine: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    clock = SimpleNamespace(monotonic=lambda: now, time_ns=time.time_ns)
    monkeypatch.setattr(mirrored, "time", clock)
    store = machine("a")
    log = MirroredLog(store.root / "results.jsonl", store.remote, every=30.0)
    for now, key, parts in (
        *((1.0, "v", []), (29.0, "w", [])),
        *((30.0, "x", ["vwx"]), (59.0, "y", ["vwx"]), (60.0, "z", ["vwx", "yz"])),
    ):
        log.append(row(key, now))
        there = [store.remote.read(name) or b"" for name in store.remote.names("results")]
        found = ["".join(json.loads(line)["key"] for line in part.splitlines()) for part in there]
        assert sorted(found) == parts
    assert keys(machine("b").results()) == {"v": 1.0, "w": 29.0, "x": 30.0, "y": 59.0, "z": 60.0}


def test_opening_a_log_again_appends_nothing(machine: Opener) -> None:
    first = machine("a").results()
    first.append(row("x", 1.0))
    first.close()
    path = machine("b").results().path
    before = path.read_bytes()
    assert before.count(b"\n") == 1
    machine("b").results().close()
    assert path.read_bytes() == before
    assert len(machine("c").remote.names("results")) == 1


def test_a_log_may_lie_beside_the_store(machine: Opener, tmp_path: Path) -> None:
    log = machine("a").results(tmp_path / "results.jsonl")
    log.append(row("x", 1.0))
    log.close()
    assert json.loads((tmp_path / "results.jsonl").read_text())["key"] == "x"
    assert keys(machine("b").results()) == {"x": 1.0}


def test_a_remote_store_that_goes_away_loses_no_row(
    machine: Opener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = machine("a")
    log = MirroredLog(store.root / "results.jsonl", store.remote, every=0.0)
    with monkeypatch.context() as patch:

        def away(self: ObjectStore, name: str, content: bytes) -> None:
            raise StoreError("cannot write")

        patch.setattr(ObjectStore, "write", away)
        log.append(row("x", 1.0))
        log.append(row("y", 2.0))
        assert "trying again later" in caplog.text
        with pytest.raises(StoreError, match=r"all rows are in .*results\.jsonl"):
            log.close()
    log.close()
    assert keys(machine("b").results()) == {"x": 1.0, "y": 2.0}


# Addresses and faults


def test_a_path_is_a_plain_store(tmp_path: Path) -> None:
    assert type(open_store(tmp_path / "s")) is Store
    assert type(open_store(str(tmp_path / "s"))) is Store


def test_the_local_side_is_named_after_the_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYGRID_CACHE", str(tmp_path / "cache"))
    one, two = (open_store((tmp_path / name).as_uri()) for name in ("one", "two"))
    assert one.root.parent == two.root.parent == tmp_path / "cache"
    assert one.root != two.root
    assert open_store((tmp_path / "one").as_uri()).root == one.root


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("ftp://host/x", "store ftp:// is unknown; allowed are"),
        ("s3://", "has no bucket"),
        ("file://folder/x", "no absolute path"),
        ("s3://grid/x?color=red", "has the unknown option color"),
        ("s3://me:secret@grid/x", "s3://***@grid/x holds credentials; take them out"),
        ("s3://grid/run#1", "s3://grid/run#1 has a #, which ends an address; take a name without"),
        ("s3://grid/run#", "s3://grid/run# has a #"),
        ("file:///tmp/run#1", "file:///tmp/run#1 has a #, which ends an address; write %23 for it"),
    ],
)
def test_a_bad_address_is_refused(tmp_path: Path, where: str, says: str) -> None:
    with pytest.raises(StoreError) as caught:
        open_store(where, tmp_path)
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_reader_needs_no_right_to_write(
    machine: Opener, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Questions to finished trials ended with: cannot write .probe."""
    machine("a").put("poison", "k", BUNDLE)

    def deny(self: ObjectStore, name: str, *_: Any) -> None:
        raise StoreError(f"cannot write {name} in {self.url}: ACCESS_DENIED")

    for method in ("_put", "delete", "remove"):
        monkeypatch.setattr(ObjectStore, method, deny)
    with pytest.raises(StoreError, match=r"cannot write \.probe"):
        open_store(url, tmp_path / "writer")
    reader = open_store(url, tmp_path / "reader", reading=True)
    assert same(reader.get("poison", "k"), BUNDLE)
    reader.put("poison", "made", OTHER)
    assert same(reader.get("poison", "made"), OTHER)
    assert not reader.has("poison", "made"), "the others lack it"


def test_a_store_that_does_not_answer_is_one_clear_error(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ObjectStore, "patience", (0.01, 0.01))
    caplog.set_level(logging.DEBUG)
    started = time.perf_counter()
    where = f"s3://grid/x?endpoint_override=127.0.0.1:{free_port()}&scheme=http&region=us-east-1"
    with pytest.raises(StoreError, match=r"cannot write \.probe in s3://grid/x: ") as caught:
        open_store(where, tmp_path)
    assert time.perf_counter() - started < 20
    assert "\n" not in str(caught.value)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(caught.value) + caplog.text


def test_a_bucket_that_does_not_exist_is_not_tried_again(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raygrid.core.retry.time.sleep", lambda _: pytest.fail("tried again"))
    where = f"s3://nowhere/x?endpoint_override={s3}&scheme=http&region=us-east-1"
    with pytest.raises(StoreError, match="bucket does not exist"):
        open_store(where, tmp_path)


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write \.probe in file://"):
        open_store(f"{(tmp_path / 'file').as_uri()}/x", tmp_path / "cache")


def test_a_request_is_repeated_a_few_times(tmp_path: Path) -> None:
    """Two failures are overcome, a third is an error."""

    class Failing:
        type_name = "s3"

        def __init__(self, failures: int) -> None:
            self.left = failures

        def delete_file(self, path: str) -> None:
            self.left -= 1
            if self.left >= 0:
                raise OSError("NETWORK_CONNECTION\nmore")

    ObjectStore("s3://b", Failing(2), "b", (0.0, 0.0)).delete("x")
    with pytest.raises(StoreError) as caught:
        ObjectStore("s3://b", Failing(3), "b", (0.0, 0.0)).delete("x")
    assert str(caught.value) == "cannot delete x in s3://b: NETWORK_CONNECTION"
