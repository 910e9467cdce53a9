"""The store: atomic, checked, without pickle; the result log survives torn lines."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from raygrid.core.errors import StoreError
from raygrid.core.hashing import checksum, key_of
from raygrid.storage import store as store_module
from raygrid.storage.checkpoints import CheckpointSlot, pack, unpack
from raygrid.storage.mirrored import open_store
from raygrid.storage.store import DATA_FILE, META_FILE, Bundle, Store

BUNDLE = Bundle({"x": torch.arange(6).view(2, 3), "y": torch.ones(2)}, {"note": "a"})


def test_what_goes_in_comes_out(store: Store) -> None:
    store.put("poison", "k", BUNDLE)
    found = store.get("poison", "k")
    assert found is not None
    assert torch.equal(found.tensors["x"], BUNDLE.tensors["x"])
    assert found.facts == {"note": "a"}
    assert store.get("poison", "other") is None


def test_a_second_writer_changes_nothing(store: Store) -> None:
    store.put("poison", "k", BUNDLE)
    before = (store.path("poison", "k") / DATA_FILE).stat().st_ino
    store.put("poison", "k", BUNDLE)
    assert (store.path("poison", "k") / DATA_FILE).stat().st_ino == before
    assert not list(store.path("poison", "k").parent.glob(".tmp-*"))


def test_what_killed_writers_left_is_removed_when_it_is_a_day_old(store: Store) -> None:
    """Half an entry took its room for ever; one that is still being written is left alone."""
    store.put("poison", "k", BUNDLE)
    kind = store.path("poison", "k").parent
    for name, folder_age, file_age in (("dead", 2, 2), ("fresh", 0, 0), ("growing", 2, 0)):
        stage = kind / f".tmp-{name}"
        stage.mkdir()
        (stage / DATA_FILE).write_bytes(bytes(64))
        for path, days in ((stage / DATA_FILE, file_age), (stage, folder_age)):
            at = time.time() - days * 86_400
            os.utime(path, (at, at))
    store.put("poison", "other", BUNDLE)
    assert sorted(path.name for path in kind.iterdir()) == [
        ".tmp-fresh",
        ".tmp-growing",
        "k",
        "other",
    ]
    assert store.get("poison", "k") is not None


def test_tensors_that_share_memory_are_stored_each(store: Store) -> None:
    whole = torch.arange(12.0).view(3, 4)
    tensors = {"a": whole, "b": whole, "row": whole[1], "turned": whole.T, "none": whole[:0]}
    store.put("poison", "k", Bundle(tensors, {}))
    found = store.get("poison", "k")
    assert found is not None
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors.items())


def rewrite(folder: Path, **changes: object) -> None:
    meta = json.loads((folder / META_FILE).read_text())
    (folder / META_FILE).write_text(json.dumps({**meta, **changes}))


def change_facts(folder: Path) -> None:
    rewrite(folder, facts={"note": "b"})


def other_arrays(folder: Path) -> None:
    """Arrays that the meta does not speak of, with a right checksum."""
    save_file({"z": torch.ones(3)}, folder / DATA_FILE)
    rewrite(folder, sha256=checksum(folder / DATA_FILE))


def other_entry(folder: Path) -> None:
    """Whole and sound, but that of another key."""
    other = Store(folder.parents[2])
    other.put("poison", "other", Bundle({"x": torch.ones(1)}, {}))
    shutil.rmtree(folder)
    other.path("poison", "other").rename(folder)


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("x")


FIELD_DAMAGE: dict[str, Callable[[Path], object]] = {
    "not utf-8": lambda folder: (folder / META_FILE).write_bytes(b"\xff\xfe"),
    "a list": lambda folder: (folder / META_FILE).write_text("[]"),
    "deep": lambda folder: (folder / META_FILE).write_text("[" * 100_000),
    "facts null": lambda folder: rewrite(folder, facts=None),
    "facts changed": change_facts,
    "other arrays": other_arrays,
    "other entry": other_entry,
    "a file": a_file,
}


@pytest.mark.parametrize("damage", FIELD_DAMAGE)
def test_whatever_is_wrong_with_an_entry_it_is_set_aside_and_made_again(
    store: Store, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """R3: each was a traceback in every trial of every run, or was taken as it is."""
    store.put("poison", "k", BUNDLE)
    FIELD_DAMAGE[damage](store.path("poison", "k"))
    assert store.get("poison", "k") is None
    assert store.arrays("poison", "k") is None
    assert "k is damaged (" in caplog.text
    store.put("poison", "k", BUNDLE)
    found = store.get("poison", "k")
    assert found is not None
    assert found.facts == {"note": "a"}


def test_entries_from_before_there_were_digests_are_read(store: Store) -> None:
    store.put("poison", "k", BUNDLE)
    folder = store.path("poison", "k")
    meta = json.loads((folder / META_FILE).read_text())
    del meta["digest"]
    (folder / META_FILE).write_text(json.dumps(meta))
    assert store.get("poison", "k") is not None


@pytest.mark.parametrize("content", [b"\xff", b"[]", b'{"sha256": "0", "facts": null}'])
def test_a_damaged_meta_of_a_remote_store_is_replaced(tmp_path: Path, content: bytes) -> None:
    where = (tmp_path / "far").as_uri()
    open_store(where, tmp_path / "one").put("poison", "k", BUNDLE)
    (remote,) = (tmp_path / "far").rglob(META_FILE)
    remote.write_bytes(content)
    another = open_store(where, tmp_path / "two")
    assert another.get("poison", "k") is None
    another.put("poison", "k", BUNDLE)
    third = open_store(where, tmp_path / "three").get("poison", "k")
    assert third is not None
    assert third.facts == {"note": "a"}


@pytest.mark.parametrize("damage", ["flip", "cut", "lose_meta", "lose_data", "garble_meta"])
def test_a_damaged_entry_is_moved_aside(store: Store, damage: str) -> None:
    store.put("poison", "k", BUNDLE)
    folder = store.path("poison", "k")
    data = bytearray((folder / DATA_FILE).read_bytes())
    if damage == "flip":
        data[-1] ^= 1
        (folder / DATA_FILE).write_bytes(data)
    elif damage == "cut":
        (folder / DATA_FILE).write_bytes(data[:-4])
    elif damage == "lose_data":
        (folder / DATA_FILE).unlink()
    elif damage == "lose_meta":
        (folder / "meta.json").unlink()
    else:
        (folder / "meta.json").write_text("{")
    assert store.get("poison", "k") is None
    assert len(list(folder.parent.glob("k.damaged-*"))) == 1
    store.put("poison", "k", BUNDLE)
    assert store.get("poison", "k") is not None


def test_an_unwritable_root_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StoreError, match="not writable"):
        Store(file / "store")


def test_a_full_disk_is_one_clear_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(StoreError, match="No space left"):
        store.put("poison", "k", BUNDLE)
    assert not store.has("poison", "k")


def test_the_last_row_of_a_key_counts_and_torn_lines_are_left_out(store: Store) -> None:
    log = store.results()
    log.append({"key": "a", "spec": "s", "status": "failed"})
    log.append({"key": "b", "spec": "s", "status": "done"})
    with log.path.open("a") as file:
        file.write('{"key": "c", "sta')
    log.append({"key": "a", "spec": "s", "status": "done"})
    assert [(r["key"], r["status"]) for r in log.rows()] == [("a", "done"), ("b", "done")]


def test_keys_depend_on_content_not_on_order() -> None:
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})


def test_a_checkpoint_replaces_the_one_before_and_damage_falls_back(store: Store) -> None:
    partial = CheckpointSlot(store, "k")
    assert partial.load() is None
    for number in range(3):
        partial.save(Bundle({"x": torch.full((2,), float(number))}))
    found = partial.load()
    assert found is not None
    assert found.tensors["x"].tolist() == [2.0, 2.0]
    assert len(list((store.root / "artifacts" / "partial").iterdir())) == 1
    partial.clear()
    assert partial.load() is None


def test_nested_state_round_trips_through_the_store(store: Store) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {"optimizer": optimizer.state_dict(), "history": [{"epoch": 1.0}], "none": None}
    store.put("partial", "k", pack(state))
    stored = store.get("partial", "k")
    assert stored is not None
    back = unpack(stored)
    fresh = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    fresh.load_state_dict(back["optimizer"])
    assert fresh.param_groups[0]["lr"] == 0.1
    buffers = zip(optimizer.state.values(), fresh.state.values(), strict=True)
    for one, two in buffers:
        assert torch.equal(one["momentum_buffer"], two["momentum_buffer"])
    assert back["history"] == state["history"]


def test_a_fault_of_the_reader_costs_no_entry(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With too many open files a sound poison was moved aside, for every machine."""
    store.put("poison", "k", Bundle({"x": torch.zeros(3)}))

    def refuse(*_: Any) -> str:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as broken:
        broken.setattr(store_module, "checksum", refuse)
        with pytest.raises(StoreError, match=r"cannot read .*Too many open files") as caught:
            store.get("poison", "k")
    assert caught.value.passing
    assert store.get("poison", "k") is not None
