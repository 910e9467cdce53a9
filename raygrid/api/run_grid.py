"""Running a grid: plan, do what is not done, keep every row, write the tables."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raygrid.api.pictures import PoisonPictures
from raygrid.core.device import check_room, utilization
from raygrid.core.errors import ClaimedError, ClaimLost, StartError, StoreError
from raygrid.core.lazy import torch
from raygrid.core.local_gpus import NO_UTILIZATION
from raygrid.core.options import Options as Options
from raygrid.core.plugins import load_plugins, refuse_unsent
from raygrid.core.retry import patiently
from raygrid.core.spec import TrialSpec
from raygrid.core.speed import CPU, GPU
from raygrid.engine import grid as grids
from raygrid.engine import notice
from raygrid.engine.costs.profiles import Profiles, ProfileStore
from raygrid.engine.events import ArtifactState, Listener, Listeners
from raygrid.engine.grid import Grid, Plan
from raygrid.engine.local import run_inline
from raygrid.engine.schedule import Agenda
from raygrid.engine.worker import Worker, best_device
from raygrid.storage.claims import Claim, claimed
from raygrid.storage.mirrored import open_store
from raygrid.storage.results import REPORT_FILE, RESULTS_FILE, TABLES_MARK, ResultLog
from raygrid.storage.store import LOCK_FILE, Store, make_folder
from raygrid.tracking.journal import Journal
from raygrid.trials.artifacts import Artifact
from raygrid.trials.catalog import Catalog
from raygrid.trials.derive import derive_row
from raygrid.trials.result import Result
from raygrid.trials.trial import Trial

RunSpecs = Grid | Iterable[TrialSpec | str]
Planned = tuple[Plan, Store, Catalog]


@dataclass
class Outcome:
    """What a run came to.

    results: all rows of the grid in its order, those of earlier runs too. failed_attempts: failed
    repeats of trials that an earlier run had finished and that ran again because `keep` wants
    more of them.
    """

    plan: Plan
    results: list[Result]
    submitted: int
    seconds: float
    files: list[Path] = field(default_factory=list)
    failed_attempts: list[Result] = field(default_factory=list)

    @property
    def failed(self) -> list[Result]:
        return [*(r for r in self.results if r.status == "failed"), *self.failed_attempts]


class ResultWriter(Listener):
    """Appends every row to the log as soon as it is known."""

    def __init__(self, log: ResultLog) -> None:
        self.log = log

    def trial_finished(self, trial: Trial, result: Result) -> None:
        patiently(lambda: self.log.append(result.row()))


class ClaimGuard(Listener):
    """Looks, before work goes on, whether this driver still holds its trials; else ClaimLost."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim

    def artifact(self, artifact: Artifact, state: ArtifactState, facts: dict[str, Any]) -> None:
        self.claim.check()

    def trial_started(self, trial: Trial) -> None:
        self.claim.check()

    def epoch(self, trial: Trial, metrics: dict[str, float]) -> None:
        self.claim.check()


class ProfileLearner(Listener):
    """Has the profiles take in every trial that ends, and the store keep them."""

    def __init__(self, profiles: Profiles, profile_store: ProfileStore) -> None:
        self.profiles, self.profile_store = profiles, profile_store

    def trial_finished(self, trial: Trial, result: Result) -> None:
        self.profiles.learn(trial, result.row())
        self.profile_store.tick(self.profiles)

    def close(self, interrupted: bool) -> None:
        self.profile_store.save(self.profiles)


def make_plan(specs: RunSpecs, options: Options) -> Planned:
    """Check everything before anything runs; raises SpecError, DataError or StoreError."""
    load_plugins(options.imports)
    store = open_store(options.store_url)
    catalog = Catalog(store, options.data)
    listed = specs.specs() if isinstance(specs, Grid) else specs
    return grids.plan(listed, catalog, strict=options.strict), store, catalog


def run_grid(specs: RunSpecs, options: Options, *listeners: Listener) -> Outcome:
    """Run what is not done yet and write all tables. Running it again fills gaps only."""
    return run_planned(make_plan(specs, options), options, *listeners)


def run_planned(planned: Planned, options: Options, *listeners: Listener) -> Outcome:
    """The same for a plan that is made already, with these options."""
    started, began = time.perf_counter(), time.time()
    plan, store, catalog = planned
    options.out.mkdir(parents=True, exist_ok=True)
    log, todo = _open(plan, store, options)
    if options.engine == "ray":
        refuse_unsent((method for trial in todo for method in trial.methods), options.imports)
    held = claimed(store, (trial.key for trial in todo)) if todo else contextlib.nullcontext()
    with held as claim:
        if todo:  # another driver may just have finished some
            log, todo = _open(plan, store, options)
        profile_store = ProfileStore(store)
        profiles = known_profiles(plan, log, profile_store) if todo else Profiles()
        listener = Listeners(
            PoisonPictures(options.out, store, options.data),
            ResultWriter(log),
            Journal(options.out, options.name),
            ProfileLearner(profiles, profile_store),
            *listeners,
            *([] if claim is None else [ClaimGuard(claim)]),
        )
        listener.started(plan, todo)
        interrupted = True
        try:
            _execute(todo, profiles, (store, catalog), listener, options)
            _derive(plan, log, listener)
            interrupted = False
            files = [] if _are_shown(options.out, log) else _tables(options.out, log, listener)
        except ClaimLost as lost:
            raise ClaimedError(str(lost)) from None
        finally:
            try:
                listener.close(interrupted)
            finally:  # rows that others do not see yet are uploaded, whatever a terminal does
                log.close()
    rows = _in_order(plan, log.rows())
    ends = {row.key: row.status for row in rows}
    failed = [
        row
        for row in _in_order(plan, log.attempts(since=began))
        if row.status == "failed" and ends[row.key] != "failed"
    ]
    return Outcome(plan, rows, len(todo), time.perf_counter() - started, files, failed)


def _in_order(plan: Plan, rows: Iterable[dict[str, Any]]) -> list[Result]:
    """The rows of a grid, in its order."""
    place = {t.key: i for i, t in enumerate((*plan.trials, *plan.derived))}
    mine = sorted((row for row in rows if row["key"] in place), key=lambda row: place[row["key"]])
    return [Result.from_row(row) for row in mine]


def is_open(status: str, key: str, store: Store, keep: Iterable[str]) -> bool:
    """Whether a trial is to be run whose row has that status.

    True if it failed, or is done but lacks something that `keep` names.
    """
    if status == "done":
        return not all(store.has(kind, key) for kind in keep)
    return status == "failed"


def known_profiles(plan: Plan, log: ResultLog, profile_store: ProfileStore) -> Profiles:
    """What earlier runs saw of trials on GPUs: those of the store, and the rows of this grid."""
    found = profile_store.load()
    found.learn_rows(plan.trials, {row["key"]: row for row in log.rows()})
    return found


def _open(plan: Plan, store: Store, options: Options) -> tuple[ResultLog, list[Trial]]:
    """The result log, and the trials that it lacks or that did not leave all that is to be kept."""
    log = store.results(options.out.absolute() / RESULTS_FILE)
    status = {row["key"]: row["status"] for row in log.rows()}
    found = ((trial, status.get(trial.key, "failed")) for trial in plan.trials)
    return log, [trial for trial, said in found if is_open(said, trial.key, store, options.keep)]


def _execute(
    todo: Sequence[Trial],
    profiles: Profiles,
    where: tuple[Store, Catalog],
    listener: Listener,
    options: Options,
) -> None:
    store, catalog = where
    if not todo:
        return
    device = best_device()
    speed = GPU if device.type == "cuda" else CPU
    begun = store.names("shard") | store.names("partial")
    agenda = Agenda(todo, lambda a: store.has(a.kind, a.key), speed, begun)
    for artifact in agenda.reused.values():
        listener.artifact(artifact, "reused", {})
    if options.engine == "ray":
        from raygrid.engine.ray.executor import run_on_ray

        try:
            run_on_ray(agenda, options, catalog.contents, profiles, listener)
            return
        except StartError as error:
            if options.executor == "ray" or options.deadline is not None:  # Ray was asked for
                raise
            listener.note(f"{error}; running in this process, one job after the other")
    check_device(device, listener)
    agenda.divide(1, options.shards)
    run_inline(agenda, Worker(store, options, device, leaving=notice.given), listener)


def check_device(device: torch.device, listener: Listener) -> None:
    """Say what of a GPU will not be known. Raises DeviceError if somebody else fills it."""
    check_room(device, 1.0)
    if utilization(device) is None and device.type == "cuda":
        listener.note(NO_UTILIZATION)


def _derive(plan: Plan, log: ResultLog, listener: Listener) -> None:
    """Rows that follow from others: computed anew each time, written when they changed."""
    rows = {row["key"]: row for row in log.rows()}
    keys = {str(t.spec): t.key for t in plan.trials}
    for trial in plan.derived:
        bases = [rows[keys[str(spec)]] for spec in trial.bases if keys.get(str(spec)) in rows]
        if len(bases) < len(trial.bases):
            continue
        result = derive_row(trial, [Result.from_row(base) for base in bases])
        if rows.get(trial.key) != json.loads(json.dumps(result.row())):  # tuples become lists
            listener.trial_finished(trial, result)


def _are_shown(out: Path, log: ResultLog) -> bool:
    """Whether the tables are there and of all rows: a run may be cut off while it writes them."""
    if not (out / "tables").is_dir():
        return False
    try:
        return int((out / TABLES_MARK).read_text(encoding="utf-8")) == log.path.stat().st_size
    except (OSError, ValueError):
        return False


def _tables(out: Path, log: ResultLog, listener: Listener) -> list[Path]:
    from raygrid.reports.figures.write import write_figures
    from raygrid.reports.page.folders import RunFolder
    from raygrid.reports.page.write import write_page
    from raygrid.reports.tables.trial_lines import in_order
    from raygrid.reports.tables.write import write_made

    size = log.path.stat().st_size if log.path.exists() else 0
    folder = RunFolder(out.absolute().name, out, tuple(in_order(log.rows())), log.warning())
    files = [*write_made(out, folder.tables), *write_figures(out, folder.rows)]
    files.append(
        write_page([folder], out / REPORT_FILE)
    )  # with the pictures that were just written
    listener.tables(files)
    (out / TABLES_MARK).write_text(f"{size}\n", encoding="utf-8")
    return files


@contextlib.contextmanager
def exclusive(out: Path) -> Iterator[None]:
    """Hold `out` for one run of this machine, from the command line or Python.

    A second one gets a StoreError at once.
    """
    from filelock import FileLock, Timeout

    make_folder(out)
    lock = FileLock(out / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        said = f"another raygrid run is using {out}; wait for it or give another folder (--out)"
        raise StoreError(said) from None
    try:
        yield
    finally:
        lock.release()
