"""A grid that several drivers share: every trial runs once, whoever comes or is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raygrid.api import share_grid as sharing
from raygrid.api.run_grid import Options, run_grid
from raygrid.api.share_grid import View, exclusive_tables, share_grid, shared_options
from raygrid.cli.main import main
from raygrid.core import retry
from raygrid.core.driver import Driver
from raygrid.core.errors import Moving, SpecError, StoreError
from raygrid.engine import notice
from raygrid.storage import claims
from raygrid.storage.bucket import ObjectStore
from raygrid.storage.claims import Claim, claimed_keys, shared_side
from raygrid.storage.mirrored import open_store
from raygrid.storage.results import ResultLog
from raygrid.trials.result import Result
from tests import plugin
from tests.engine.test_run import essence

pytestmark = pytest.mark.usefixtures("undrawn")

assert plugin.CARD
ROOT = Path(__file__).parents[2]
SPEC = "dots/{}/none/small_cnn/supervised/brief/{}"
GRID = [SPEC.format(attack, seed) for attack in ("clean", "slow_shift") for seed in (0, 1)]


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    monkeypatch.setenv("RAYGRID_CACHE", str(tmp_path / "cache"))
    return Options(out=tmp_path / "out", data=tmp_path, executor="inline", driver="0/2")


def rows_of(out: Path) -> dict[str, Any]:
    rows = ResultLog(out / "results.jsonl").rows()
    return {row["spec"]: essence(Result.from_row(row)) for row in rows}


def test_a_driver_has_a_number_and_knows_how_many_there_are() -> None:
    assert Driver.parse("2/4") == Driver(2, 4)
    for wrong in ("4/4", "x", "1", "-1/2", "1/2/3", ""):
        with pytest.raises(SpecError, match="allowed are its number, from 0"):
            Driver.parse(wrong)


def test_a_folder_becomes_a_store_that_machines_may_share(tmp_path: Path) -> None:
    options = Options(out=tmp_path / "out")
    assert shared_options(options).store == (tmp_path / "out" / "shared").as_uri()
    local = replace(options, store=str(tmp_path / "mine"))
    assert shared_options(local).store == (tmp_path / "mine").as_uri()
    there = replace(options, store="s3://bucket/x")
    assert shared_options(there) == there


def test_drivers_that_start_together_begin_at_different_places() -> None:
    free: list[Any] = list(range(40))
    parts = [View(free, [], []).part(Driver(number, 4)) for number in range(4)]
    assert [len(part) for part in parts] == [5, 5, 5, 5]
    assert len({trial for part in parts for trial in part}) == 20
    assert View(free[:3], [], []).part(Driver(3, 4)) == [2, 0, 1]


@pytest.mark.slow
def test_one_driver_runs_all_and_the_tables_are_those_of_a_plain_run(
    options: Options, tmp_path: Path
) -> None:
    two = [GRID[0], GRID[2]]
    shared = share_grid(two, options)
    assert (len(shared.finished), shared.others, shared.failed) == (2, [], [])
    assert shared.options.driver is None
    with exclusive_tables(shared.options) as mine:
        assert mine
        with exclusive_tables(shared.options) as second:
            assert not second
        outcome = run_grid(shared.finished, shared.options)
    assert outcome.submitted == 0
    run_grid(two, Options(out=tmp_path / "plain", data=tmp_path, executor="inline"))
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "plain")
    for name in ("defense.csv", "defense.md"):
        made = tmp_path / "out" / "tables" / name
        assert made.read_text() == (tmp_path / "plain" / "tables" / name).read_text()


def test_what_another_driver_claims_or_makes_is_left_to_it(options: Options) -> None:
    """Its trial, and the other trial that waits for the poison which it makes."""
    whole = shared_options(options)
    plan, store, _ = sharing.make_plan(GRID, whole)
    keys = {str(trial.spec): trial.key for trial in plan.trials}
    theirs = Claim(shared_side(store), frozenset([keys[GRID[2]]]), beat=0.05)
    theirs.take()
    try:
        view = View.of(plan, store, replace(whole, out=options.out / "drivers" / "0"), 0.0)
        assert [str(trial.spec) for trial in view.others] == [GRID[2]]
        poison = {a.key for t in plan.trials for a in t.artifacts if "slow_shift" in str(t.spec)}
        assert poison
        assert {str(trial.spec) for trial in view.free} >= set(GRID[:2])
        shared = share_grid(GRID[:3], options)
    finally:
        theirs.release()
    assert [str(spec) for spec in shared.others] == [GRID[2]]
    assert len(rows_of(options.out / "drivers" / "0")) == 2


def test_a_dead_drivers_claim_is_found_dead_and_removed(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of another machine, whose beat stands still, and one of this machine that is gone."""
    monkeypatch.setattr(claims, "DEAD_SECONDS", 0.3)
    files = shared_side(open_store(shared_options(options).store_url))
    corpse = subprocess.Popen([sys.executable, "-c", ""])
    corpse.wait()
    here = json.loads(_note(files, ["x"]))
    there = {**here, "host": "elsewhere", "keys": ["y"]}
    files.write("claims/here.json", json.dumps({**here, "pid": corpse.pid}).encode())
    files.write("claims/there.json", json.dumps(there).encode())
    assert claimed_keys(files, ["x", "y", "z"]) == {"x", "y"}
    living = Claim(files, frozenset(["z"]), beat=0.05)
    living.take()
    try:
        assert claimed_keys(files, ["x", "y", "z"], watch=True) == {"z"}
    finally:
        living.release()
    assert files.names("claims") == []


def _note(files: Any, keys: list[str]) -> bytes:
    """What a driver writes."""
    claim = Claim(files, frozenset(keys))
    claim.take()
    content = bytes(files.read(claim.name))
    claim.release()
    return content


def test_a_driver_that_has_to_go_takes_nothing_new(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notice, "given", lambda: True)
    with pytest.raises(Moving):
        share_grid(GRID, options)
    assert not (options.out / "drivers").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_drivers_in_processes_of_their_own_run_every_trial_once(tmp_path: Path) -> None:
    """Three share twelve trials; one of them is killed in the middle and started again."""
    faults = tmp_path / "faults"
    faults.mkdir()
    specs = [f"dots/clean/none/small_cnn/paced(tag={tag})/paces/0" for tag in range(12)]
    own = {"FAULTS_DIR": str(faults), "FAULTS_PAUSE": "0.2", "PYTHONPATH": str(ROOT)}

    def start(number: int) -> subprocess.Popen[str]:
        words = ["run", *specs, "--import", "tests.faulty", "--out", str(tmp_path / "out")]
        words += ["--data", str(tmp_path), "--executor", "inline", "--quiet"]
        cache = {"RAYGRID_CACHE": str(tmp_path / f"cache{number}")}
        return subprocess.Popen(
            [sys.executable, "-m", "raygrid", *words],
            env={**os.environ, **own, **cache, "RAYGRID_DRIVER": f"{number}/3"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    drivers = [start(number) for number in range(3)]
    killed = threading.Event()
    while not killed.wait(0.1) and drivers[0].poll() is None:
        marks = faults / "marks"
        lines = marks.read_text().splitlines() if marks.exists() else []
        if any(json.loads(line)["pid"] == drivers[0].pid for line in lines):
            drivers[0].kill()
            killed.set()
    drivers[0].communicate()
    drivers[0] = start(0)
    said = [driver.communicate(timeout=600)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0, 0], said
    marks = [json.loads(line) for line in (faults / "marks").read_text().splitlines()]
    ends = [mark["tag"] for mark in marks if mark["event"] == "end"]
    assert sorted(ends) == list(range(12)), "a trial ran twice to its end"
    assert len({mark["pid"] for mark in marks}) >= 3
    assert len(rows_of(tmp_path / "out")) == 12
    assert (tmp_path / "out" / "tables" / "defense.md").exists()
    assert main(["status", "--out", str(tmp_path / "out")]) == 0


def test_a_full_disk_ends_a_driver_with_an_error(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken for another driver's claim: the same trials were trained without end."""

    def full(*_: Any) -> None:
        raise StoreError("cannot append to results.jsonl: No space left on device")

    monkeypatch.setattr(sharing, "run_grid", full)
    with pytest.raises(StoreError, match="No space left"):
        share_grid(GRID, options)


class Booked:
    """Takes the place of training: each part has its rows at once, done but for `failing`.

    during: called with the number of the part before its log is closed.
    """

    def __init__(
        self, failing: tuple[str, ...] = (), during: Callable[[int], None] = lambda part: None
    ) -> None:
        self.failing, self.during = failing, during
        self.parts: list[list[str]] = []

    def __call__(self, specs: Any, options: Options, *listeners: Any) -> None:
        plan, store, _ = sharing.make_plan(specs, options)
        log = store.results(options.out.absolute() / "results.jsonl")
        self.parts.append([str(trial.spec) for trial in plan.trials])
        for trial in plan.trials:
            lost = str(trial.spec) in self.failing
            row = Result(str(trial.spec), trial.key, "failed" if lost else "done")
            log.append({**row.row(), "finished": time.time()})
        self.during(len(self.parts))
        log.close()


def left(specs: list[Any], options: Options) -> list[str]:
    """What the writer of the tables would train, in the folder of all."""
    plan, store, _ = sharing.make_plan(specs, options)
    ends = {row["key"]: row["status"] for row in store.results(options.out / "rows").rows()}
    return [str(trial.spec) for trial in plan.trials if ends.get(trial.key) != "done"]


SIX = [SPEC.format("clean", seed) for seed in range(6)]


def away(patch: pytest.MonkeyPatch, name: str, times: int, place: str = "") -> None:
    """A method of the store refuses so often, then works again."""
    work, refused = getattr(ObjectStore, name), []

    def refuse(self: ObjectStore, where: str, *rest: Any) -> Any:
        if where.startswith(place) and len(refused) < times:
            refused.append(where)
            raise StoreError(f"cannot {name} {where}: 503", passing=True)
        return work(self, where, *rest)

    patch.setattr(ObjectStore, name, refuse)


def test_a_store_that_is_away_between_two_parts_ends_no_driver(
    options: Options, monkeypatch: pytest.MonkeyPatch, hurried: list[float]
) -> None:
    """Looking at the rows of all, and asking whose the tables are, was tried once."""
    outage = Booked(during=lambda part: away(monkeypatch, "names", 3) if part == 1 else None)
    monkeypatch.setattr(sharing, "run_grid", outage)
    shared = share_grid(SIX, replace(options, driver="0/1"))
    assert [str(spec) for spec in shared.finished] == SIX
    assert [len(part) for part in outage.parts] == [4, 2]
    assert hurried == list(retry.RETRY_SECONDS[:3])
    away(monkeypatch, "write", 2, "claims/")
    with exclusive_tables(shared.options) as mine:
        assert mine


def test_rows_that_a_part_could_not_upload_are_uploaded_before_the_end(
    options: Options, monkeypatch: pytest.MonkeyPatch, hurried: list[float]
) -> None:
    """They stayed in the driver's own folder, and the writer of the tables trained them again."""
    outage = Booked(during=lambda part: away(monkeypatch, "write", 1, "results/"))
    monkeypatch.setattr(sharing, "run_grid", outage)
    shared = share_grid(SIX, replace(options, driver="0/1"))
    assert [len(part) for part in outage.parts] == [4, 2]
    assert len(shared.finished) == 6
    assert left(list(shared.finished), shared.options) == []


def test_what_is_derived_of_a_failed_trial_is_not_brought_to_the_tables(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planning it brought the failed trial back: one driver trained it again, alone."""
    spec = "photo_digits/lsp/{}/small_cnn/supervised/quick/0"
    failing = spec.format("grayscale")
    monkeypatch.setattr(sharing, "run_grid", Booked((failing,)))
    given = [spec.format("iss"), spec.format("early_stopping")]
    shared = share_grid(given, replace(options, driver="0/1"))
    assert [str(each) for each in shared.failed] == [failing, spec.format("iss")]
    assert spec.format("early_stopping") in [str(each) for each in shared.finished]
    assert left(list(shared.finished), shared.options) == []


def test_a_finished_trial_that_cannot_leave_its_weights_is_tried_once(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row that counts is the old one, which alone says nothing of this run's attempt."""
    monkeypatch.setattr(sharing, "run_grid", Booked())
    share_grid(GRID[:1], options)
    again = Booked((GRID[0],))
    monkeypatch.setattr(sharing, "run_grid", again)
    shared = share_grid(GRID[:1], replace(options, keep=("weights",)))
    assert again.parts == [GRID[:1]]
    assert (shared.finished, [str(spec) for spec in shared.failed]) == ([], GRID[:1])


def test_what_is_to_be_kept_is_open_to_shared_drivers_too(options: Options) -> None:
    shared = share_grid(GRID[:1], options)
    assert len(shared.finished) == 1
    kept = replace(options, keep=("weights",))
    plan, store, _ = sharing.make_plan(GRID[:1], shared_options(kept))
    view = View.of(plan, store, replace(shared_options(kept), out=options.out / "x"), time.time())
    assert [str(trial.spec) for trial in view.free] == GRID[:1]
    share_grid(GRID[:1], kept)
    assert all(store.has("weights", trial.key) for trial in plan.trials)


@pytest.mark.timeout(120)
def test_a_trial_that_diverged_is_over_whatever_is_to_be_kept(options: Options) -> None:
    """It left no weights, so it was open to the drivers and over for their runs, without end."""
    kept = replace(options, keep=("weights",))
    plan, store, _ = sharing.make_plan(GRID[:1], shared_options(kept))
    log = store.results(options.out / "drivers" / "0" / "results.jsonl")
    (options.out / "drivers" / "0").mkdir(parents=True)
    row = Result(GRID[0], plan.trials[0].key, status="diverged", finished=1.0).row()
    log.append(row)
    log.close()
    shared = share_grid(GRID[:1], kept)
    assert [str(spec) for spec in shared.finished] == GRID[:1]


def test_a_store_that_is_away_for_a_moment_ends_no_driver(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, tries = sharing.run_grid, []

    def away(*args: Any) -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise StoreError("cannot write claims/x.json: timed out", passing=True)
        return run(*args)

    monkeypatch.setattr(sharing, "run_grid", away)
    monkeypatch.setattr(sharing.time, "sleep", lambda seconds: None)
    assert len(share_grid(GRID[:1], options).finished) == 1
