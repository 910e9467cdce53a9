"""What a run writes beside its rows."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from raygrid.api import run_grid as module
from raygrid.api.run_grid import Options, run_grid
from raygrid.cli.outcome import outcome_json, print_outcome
from raygrid.core import retry
from raygrid.core.errors import StoreError
from raygrid.storage.results import ResultLog
from raygrid.storage.store import Bundle, Store
from tests.engine.test_run import GRID, Recorder
from tests.engine.toys import Mute

GRID_OF_TWO = [f"dots/{a}/none/small_cnn/supervised/brief/0" for a in ("clean", "lsp")]
GRID_OF_ONE = GRID_OF_TWO[:1]


def test_tables_figures_and_the_page_are_written_where_there_is_news(options: Options) -> None:
    files = run_grid(GRID, options).files
    assert all(file.stat().st_size > 0 for file in files)
    names = {str(file.relative_to(options.out)) for file in files}
    figures = {name for name in names if name.startswith("figures/")}
    pictures = {name for name in names if name.startswith("tables/") and name.endswith(".png")}
    assert {"report.html", "tables/defense.md", "tables/defense.csv"} <= names
    kinds = {name.removeprefix("figures/").split("-dots")[0] for name in figures}
    assert kinds == {"curves", "peak-final", "speed-peak"}
    assert pictures
    assert all((options.out / name).read_bytes()[1:4] == b"PNG" for name in figures | pictures)
    assert run_grid(GRID, options).files == []


def test_tables_that_a_cut_off_run_did_not_write_are_written_by_the_next(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was left to run, so they lacked the new rows for good."""
    run_grid(GRID_OF_ONE, options)
    with monkeypatch.context() as cut:
        cut.setattr(module, "_tables", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_grid(GRID_OF_TWO, options)
    assert "lsp" not in (options.out / "tables" / "defense.md").read_text()
    outcome = run_grid(GRID_OF_TWO, options)
    assert outcome.submitted == 0
    assert "lsp" in (options.out / "tables" / "defense.md").read_text()
    assert run_grid(GRID_OF_TWO, options).files == []
    shutil.rmtree(options.out / "tables")
    assert run_grid(GRID_OF_TWO, options).files != []


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_rows_reach_the_shared_store_though_the_terminal_is_gone(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They waited for the next upload, the claim was gone, and others ran them again."""
    monkeypatch.setenv("RAYGRID_CACHE", str(tmp_path / "cache"))
    far = replace(options, store=(tmp_path / "far").as_uri())
    with pytest.raises(OSError, match="Input/output"):
        run_grid(GRID_OF_ONE, far, Mute())
    (part,) = (tmp_path / "far" / "results").glob("*.jsonl")
    assert len(part.read_text().splitlines()) == 1


def test_a_finished_trial_that_later_cannot_leave_its_weights_stays_finished(
    options: Options, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its accuracy was gone from every table; that the run was in vain is said all the same."""
    (first,) = run_grid(GRID_OF_ONE, options).results
    put = Store.put

    def full(self: Store, kind: str, key: str, bundle: Bundle) -> None:
        if kind == "weights":
            raise StoreError("cannot write: No space left on device")
        put(self, kind, key, bundle)

    monkeypatch.setattr(Store, "put", full)
    kept = replace(options, keep=("weights",))
    outcome = run_grid(GRID_OF_ONE, kept)
    (row,) = outcome.results
    assert (row.status, row.final_acc, row.finished) == ("done", first.final_acc, first.finished)
    (failed,) = outcome.failed
    assert (failed.status, failed.key) == ("failed", first.key)
    assert [each["error"] for each in outcome_json(outcome)["failed_attempts"]] == [failed.error]
    print_outcome(outcome, kept)
    assert f"FAILED {first.spec}: " in capsys.readouterr().out
    assert [row["status"] for row in ResultLog(options.out / "results.jsonl").rows()] == ["done"]
    assert run_grid(GRID_OF_ONE, options).failed == []


def test_a_trial_that_could_not_leave_its_weights_keeps_its_checkpoint(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One refusal of the store made it failed, and the next run trained from the beginning."""
    asked: list[str] = []
    put = Store.put

    def away(self: Store, kind: str, key: str, bundle: Bundle) -> None:
        if kind == "weights":
            asked.append(key)
            if len(asked) < 4:
                raise StoreError("cannot write: the store is away", passing=len(asked) < 3)
        put(self, kind, key, bundle)

    monkeypatch.setattr(Store, "put", away)
    monkeypatch.setattr(retry.time, "sleep", lambda seconds: None)
    kept = replace(options, keep=("weights",), checkpoint_every=0.0)
    (first,) = run_grid(GRID_OF_ONE, kept).results
    assert (first.status, len(asked)) == ("failed", 3), "asked again until it was told to stop"
    recorder = Recorder()
    (second,) = run_grid(GRID_OF_ONE, kept, recorder).results
    assert (second.status, recorder.epochs) == ("done", 0)
    assert not list((options.out / "store" / "artifacts" / "partial").glob("*"))
