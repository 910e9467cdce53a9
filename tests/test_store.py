"""The store: atomic, checked, without pickle; the result log survives torn lines."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from raygrid.errors import StoreError
from raygrid.store import DATA, Bundle, Store, key_of

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
    before = (store.path("poison", "k") / DATA).stat().st_ino
    store.put("poison", "k", BUNDLE)
    assert (store.path("poison", "k") / DATA).stat().st_ino == before
    assert not list(store.path("poison", "k").parent.glob(".tmp-*"))


@pytest.mark.parametrize("damage", ["flip", "cut", "lose_meta", "lose_data", "garble_meta"])
def test_a_damaged_entry_is_moved_aside(store: Store, damage: str) -> None:
    store.put("poison", "k", BUNDLE)
    folder = store.path("poison", "k")
    data = bytearray((folder / DATA).read_bytes())
    if damage == "flip":
        data[-1] ^= 1
        (folder / DATA).write_bytes(data)
    elif damage == "cut":
        (folder / DATA).write_bytes(data[:-4])
    elif damage == "lose_data":
        (folder / DATA).unlink()
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

    monkeypatch.setattr("raygrid.store.save_file", full)
    with pytest.raises(StoreError, match="No space left"):
        store.put("poison", "k", BUNDLE)
    assert not store.has("poison", "k")


def test_the_last_row_of_a_key_counts_and_torn_lines_are_left_out(store: Store) -> None:
    log = store.results()
    log.append({"key": "a", "status": "failed"})
    log.append({"key": "b", "status": "done"})
    with log.path.open("a") as file:
        file.write('{"key": "c", "sta')
    log.append({"key": "a", "status": "done"})
    assert [(r["key"], r["status"]) for r in log.rows()] == [("a", "done"), ("b", "done")]
    assert log.done() == {"a", "b"}


def test_keys_depend_on_content_not_on_order() -> None:
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})
