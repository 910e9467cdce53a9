"""The second place of a mirrored store breaks under a run: nothing is lost, a line says what is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from raygrid.api.run_grid import Options, run_grid
from raygrid.storage.store import DATA_FILE, META_FILE
from tests.engine.test_run import essence
from tests.paced import INLINE, PacedRun
from tests.places import bound_by_permissions, fill, small_disk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
POISONED = [
    "dots/lsp/none/small_cnn/supervised/brief/0",
    "dots/clean/jpeg/small_cnn/supervised/brief/0",
]


def mirrored(folder: Path, far: Path, limit: Callable[[], None] | None = None) -> PacedRun:
    words = (*INLINE, "--tracking", "off", "--checkpoint-every", "0.01", "--store", far.as_uri())
    return PacedRun(folder, words, limit=limit, env={"RAYGRID_CACHE": str(folder / "cache")})


def everything(place: Path) -> list[Path]:
    return [place, *place.rglob("*")]


def read_only(far: Path) -> None:
    for path in everything(far):
        path.chmod(0o555 if path.is_dir() else 0o444)


def full(far: Path) -> None:
    fill(far.parent)


def gone(far: Path) -> None:
    far.rename(far.with_name("elsewhere"))
    far.touch()


def restored(far: Path) -> None:
    """As it was before any of these."""
    (far.parent / "filler").unlink(missing_ok=True)
    if far.is_file():
        far.unlink()
        far.with_name("elsewhere").rename(far)
    for path in everything(far):
        path.chmod(0o755 if path.is_dir() else 0o644)


def rows_there(far: Path) -> list[str]:
    parts = sorted((far / "results").glob("*.jsonl"))
    return [json.loads(line)["spec"] for part in parts for line in part.read_text().splitlines()]


@pytest.mark.parametrize("fault", [read_only, full, gone], ids=lambda fault: fault.__name__)
def test_rows_stay_here_while_the_second_place_is_broken(
    tmp_path: Path, fault: Callable[[Path], None]
) -> None:
    """From the middle of a run to its end; the next one brings them there and trains nothing."""
    with ExitStack() as stack:
        disk = (
            stack.enter_context(small_disk(tmp_path / "small", 16)) if fault is full else tmp_path
        )
        far = disk / "far"
        run = mirrored(tmp_path, far, bound_by_permissions)
        run.hold(2)
        run.start()
        run.until_training(2)
        fault(far)
        run.release(2)
        status, said = run.end()
        restored(far)
        assert status == 2, said
        assert "Traceback" not in said
        last = said.splitlines()[-1]
        assert last.startswith("raygrid: cannot write results/"), said
        assert last.endswith(f"all rows are in {run.out / 'results.jsonl'}")
        run.assert_whole()
        assert (run.out / "tables" / "defense.csv").exists()
        assert not list(far.rglob("*.tmp-*"))
        run.start()
        status, said = run.end()
        assert status == 0, said
        run.assert_whole()
        assert sorted(rows_there(far)) == run.specs
        # A claim cannot be taken away from where nothing can be; the dead one stops nobody.
        assert len(list((far / "claims").iterdir())) == (fault is not full)


def test_a_second_place_that_may_not_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    far = tmp_path / "far"
    far.mkdir(mode=0o555)
    run = mirrored(tmp_path, far, bound_by_permissions)
    run.start()
    status, said = run.end()
    restored(far)
    assert status == 2
    (line,) = said.splitlines()
    assert line.startswith(f"raygrid: cannot write .probe in {far.as_uri()}: ")
    assert "Permission denied" in line
    assert not run.marks("epoch")


def test_damaged_copies_are_made_again_with_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a poison, of a purified set, of rows: by a machine that has nothing itself."""
    far = tmp_path / "far"

    def run_from(name: str) -> list[dict[str, object]]:
        monkeypatch.setenv("RAYGRID_CACHE", str(tmp_path / f"cache-{name}"))
        out = tmp_path / name
        options = Options(out=out, data=tmp_path, executor="inline", store=far.as_uri())
        return [essence(row) for row in run_grid(POISONED, options).results]

    whole = run_from("first")
    entries = sorted(far.glob("artifacts/*/*"))
    assert {entry.parent.name for entry in entries} >= {"dataset", "poison", "purified"}
    for number, entry in enumerate(entries):
        file = (
            entry / META_FILE if number % 3 == 0 else next(entry.glob(f"*{Path(DATA_FILE).suffix}"))
        )
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2] if number % 3 == 1 else b"\xff" + content[1:])
    for part in far.glob("results/*.jsonl"):
        part.write_bytes(part.read_bytes().replace(b'"done"', b'"dome"'))
    assert run_from("second") == whole
    assert "broken lines in the results of the remote store are not used" in caplog.text
    assert "is damaged" in caplog.text
    shutil.rmtree(tmp_path / "cache-second")
    assert run_from("third") == whole, "what was made again is whole there"
