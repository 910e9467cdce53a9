"""Somebody who may only read a run's folder sees all of it, and leaves no trace in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from raygrid.cli.main import main
from raygrid.core.errors import StoreError
from raygrid.storage.store import Bundle, Store
from tests.reports.rows import CIFAR, trial
from tests.reports.test_page import epochs, write_rows

SPEC = CIFAR.format("em_apb", "apbench", 0)
LOOKS = (
    ["table", "peak"],
    ["table", "defense"],
    ["show", SPEC],
    ["evaluate", "agreement"],
    ["evaluate", "seeds"],
    ["evaluate", "cost"],
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        trial(CIFAR.format("em_apb", "apbench", n), 0.25, history=epochs(3, 0.3)) for n in (0, 1)
    ]
    return write_rows(tmp_path_factory.mktemp("run"), rows)


def traces(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of all that is in a folder, itself included."""
    found = [folder, *folder.rglob("*")]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


@pytest.mark.parametrize("words", LOOKS, ids=" ".join)
def test_looking_writes_nothing(words: list[str], out: Path) -> None:
    before = traces(out)
    assert main([*words, "--out", str(out)]) == 0
    assert traces(out) == before


def test_asking_for_the_status_writes_nothing(out: Path) -> None:
    before = traces(out)
    assert main(["status", "--out", str(out)]) == 2, "no driver was ever here"
    assert traces(out) == before


def test_looking_at_the_machine_leaves_nothing(out: Path, tmp_path: Path) -> None:
    """Neither in a folder that is there nor the folder itself, its store or its database."""
    before = traces(out).keys()
    new = tmp_path / "new" / "run"
    for folder in (out, new):
        assert main(["doctor", "--out", str(folder), "--data", str(tmp_path / "absent")]) == 0
    assert traces(out).keys() == before
    assert not new.parent.exists()


def test_a_page_goes_where_the_viewer_wants_it(out: Path, tmp_path: Path) -> None:
    before = traces(out)
    assert main(["report", str(out), "--file", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").stat().st_size > 10_000
    assert traces(out) == before


def test_a_store_that_is_read_is_not_made_until_something_is_put(tmp_path: Path) -> None:
    import torch

    store = Store(tmp_path / "store", reading=True)
    assert not store.has("poison", "a")
    assert store.get("poison", "a") is None
    assert not store.root.exists()
    store.put("poison", "a", Bundle({"x": torch.ones(2)}, {}))
    assert store.has("poison", "a")


def test_a_damaged_entry_of_somebody_else_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    store = Store(tmp_path / "store")
    store.put("poison", "a", Bundle({"x": torch.ones(2)}, {}))
    (store.path("poison", "a") / "data.safetensors").write_bytes(b"damaged")

    def refuse(*paths: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("os.rename", refuse)
    with pytest.raises(StoreError, match=r"checksum differs.*moved aside: Read-only file system"):
        store.get("poison", "a")
