"""From the files of a run to MLflow: the one way in which anything gets there, live or later."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from raygrid.storage.results import RESULTS_FILE, Json, best, check_row, precedence, when
from raygrid.tracking.journal import Tail, grid_key, line_at
from raygrid.tracking.mlflow.address import without_credentials
from raygrid.tracking.mlflow.client import EXPERIMENT_NAME, TABLES_EXPERIMENT
from raygrid.tracking.mlflow.connection import is_gone, is_transient
from raygrid.tracking.mlflow.controls import Controls
from raygrid.tracking.mlflow.description import description, findings, tidy
from raygrid.tracking.mlflow.facts import (
    epoch_points,
    is_contrastive,
    params_of,
    written_mark,
)
from raygrid.tracking.mlflow.followed import (
    FollowedGrid,
    FollowedGrids,
    UnfinishedTrial,
    UnfinishedTrials,
)
from raygrid.tracking.mlflow.moved import follow_folder
from raygrid.tracking.mlflow.pictures import SharedPictures
from raygrid.tracking.mlflow.tables import Mirror
from raygrid.tracking.mlflow.trial_runs import TrialRuns
from raygrid.trials.result import Result

log = logging.getLogger(__name__)


class Follower:
    """Reads `grids.jsonl`, `epochs.jsonl` and `results.jsonl` of a folder and tells MLflow.

    out: the folder. uri: of the MLflow store. Nothing is lost if it ends at any moment: another
    one begins with all files and leaves alone what MLflow has completely. Of what waits, places in
    files are kept, not content.
    """

    def __init__(self, out: Path, uri: str) -> None:
        self.out, self.uri = out.absolute(), uri
        follow_folder(self.out, uri, (EXPERIMENT_NAME, TABLES_EXPERIMENT))
        self.written = 0
        self._refused: set[str] = set()
        self._begin()

    def _begin(self) -> None:
        """Know neither what the files hold nor what MLflow has."""
        self.experiment = TrialRuns.of(self.out, self.uri)
        self._grids, self._rows = FollowedGrids(self.out), Tail(self.out / RESULTS_FILE)
        self._running = UnfinishedTrials(self.out)
        self._waiting: dict[str, int] = {}  # key -> place of its row
        self._controls = Controls()
        self._pictures = SharedPictures(self.out)
        self._over: dict[str, float] = {}  # key -> when its last attempt was over
        self._rank: dict[str, tuple[bool, float]] = {}  # key -> why its row counts
        self._complete: dict[str, str] | None = None

    @property
    def waiting(self) -> int:
        """About how many entries are still to be told."""
        running = sum(1 for _ in self._running.waiting())
        files = sum(len(grid.files) for grid in self._grids.known.values())
        return len(self._waiting) + running + files

    @property
    def missing(self) -> int:
        """About how many entries MLflow lacks, those among them that it refuses."""
        return self.waiting + len(self._refused - self._waiting.keys())

    @property
    def broken(self) -> int:
        """Lines of results that cannot be read."""
        return self._rows.broken

    def read(self) -> None:
        """Take in what the files hold by now; raises DataError for a line of ours without a field.

        The next call goes on behind that line.
        """
        self._grids.read()
        for place, line in self._rows.read():
            try:
                check_row(line)
            except ValueError:  # who reads the log names it
                continue
            key = line["key"]
            self._over[key] = when(line)
            if self._rank.get(key, precedence(line)) <= precedence(line):
                self._rank[key] = precedence(line)
                self._waiting |= {key: place, **self._controls.take(line, place)}
        self._running.read(self._over)

    def take_tables(self, files: list[Path]) -> None:
        """Tables of the folder go to the grid that wrote some last, else to the last one."""
        grids = list(self._grids.known.values()) or [self._home_of_strays()]
        owner = next((grid for grid in reversed(grids) if grid.files), grids[-1])
        for grid in grids:
            grid.files = files if grid is owner else []

    def write(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Tell MLflow what waits; raises at the first fault that may pass.

        If MLflow was emptied, that is such a fault, and everything waits again.
        """
        with self._anew_if_lost():
            self._write(stop)

    @contextmanager
    def _anew_if_lost(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if self._is_lost(error):
                self._begin()
                self.read()
            raise

    def _is_lost(self, error: Exception) -> bool:
        """Whether MLflow no longer has what was written to it: it was emptied or is another one."""
        parents = (grid.parent for grid in self._grids.known.values() if grid.parent)
        return is_gone(error) and self.experiment.has_lost(parents)

    def _write(self, stop: Callable[[], bool]) -> None:
        if self._complete is None:
            self._complete = self.experiment.prune()
        for grid in self._grids.known.values():
            if grid.ended is None:
                self._open(grid)
        for key in list(self._waiting):
            if stop():
                return
            self._write_row(key, self._waiting[key])
        for key, trial in self._running.waiting():
            if not stop():
                self._write_running(key, trial)
        for grid in self._grids.known.values():
            self._write_tables(grid)

    def _write_row(self, key: str, place: int) -> None:
        row = line_at(self.out / RESULTS_FILE, place)
        known = (self._complete or {}).get(key)
        if row is not None and known != self._mark(row):
            self._attempt(key, row.get("spec", key), lambda: self._finish(row))
        self._waiting.pop(key, None)

    def _mark(self, row: Json) -> str:
        return written_mark(row.get("finished") or 0.0, self._controls.of(row.get("spec")))

    def _finish(self, row: Json) -> None:
        result = Result.from_row(row)
        grid, poison = self._grid_of(result.spec), result.artifacts.get("poison")
        picture, address = self._pictures.of(poison, len(grid.specs))
        shown = grid.shown(result.spec, self._controls.of(result.spec))
        shown = replace(shown, picture=picture, picture_at=address)
        run = self.experiment.finish(self._parent_of(result.spec), result, shown)
        if picture is not None:
            self._pictures.keep(poison, self.experiment.artifact(run, picture.name))
            self._pictures.explain(grid.name, len(grid.specs))
        self.written += 1

    def _write_running(self, key: str, trial: UnfinishedTrial) -> None:
        def tell() -> None:
            parent = self._parent_of(trial.spec)
            name = self._grid_of(trial.spec).names.get(trial.spec, trial.spec)
            run = self.experiment.trial(parent, key, trial.spec, trial.start, name)
            params = params_of(trial.spec, trial.resolved)
            tags = {"raygrid.status": "running"}
            points = epoch_points(trial.epochs, is_contrastive(trial.resolved))
            self.experiment.write(run, points, params, tags)

        self._attempt(key, trial.spec, tell)
        trial.told, trial.epochs = True, []

    def _attempt(self, key: str, spec: str, action: Callable[[], None]) -> None:
        """Do it; what MLflow refuses twice is given up with a line, a passing fault is raised."""
        for last in (False, True):
            try:
                action()
            except Exception as error:
                self.experiment.forget(key)  # perhaps somebody deleted the run
                if is_transient(error) or self._is_lost(error):
                    raise
                if last:
                    self._refuse(key, spec, error)
            else:
                self._refused.discard(key)
                return

    def _refuse(self, key: str, spec: str, error: Exception) -> None:
        if key not in self._refused:
            log.warning("MLflow refuses %s: %s", spec, without_credentials(error))
        self._refused.add(key)

    def _write_tables(self, grid: FollowedGrid) -> None:
        if not grid.files:
            return
        mirror = Mirror(self.out, self.uri, grid.key, grid.name)
        parent, files = self._open(grid), list(filter(Path.exists, grid.files))
        shown: list[int] = []
        for file in files:  # each by itself: a server may refuse large ones
            keep = partial(self._keep_file, mirror, parent, file, shown)
            self._attempt(f"{grid.key}/{file.name}", file.name, keep)
        note = description(files, [mirror.link] if any(shown) else [])
        self.experiment.describe(parent, note, *findings(files))
        rows = tidy(self._rows_of(grid), grid.names)
        keep = partial(self.experiment.table, parent, rows, "trials.json")
        self._attempt(f"{grid.key}/trials.json", "trials.json", keep)
        grid.files = []

    def _keep_file(self, mirror: Mirror, parent: str, file: Path, shown: list[int]) -> None:
        shown.append(mirror.keep(self.experiment, parent, file))

    def _rows_of(self, grid: FollowedGrid) -> Iterator[Json]:
        specs = set(grid.specs)
        rows = (
            row
            for _, row in Tail(self.out / RESULTS_FILE).read()
            if isinstance(row.get("key"), str)
        )
        yield from best(row for row in rows if row.get("spec") in specs).values()

    def _parent_of(self, spec: str) -> str:
        """The parent run of the first grid that has a trial; a grid for those that none has."""
        return self._open(self._grid_of(spec))

    def _grid_of(self, spec: str) -> FollowedGrid:
        return self._grids.home_of(spec) or self._home_of_strays()

    def _home_of_strays(self) -> FollowedGrid:
        if "" not in self._grids.known:
            self._grids.known[""] = self._strays()
        return self._grids.known[""]

    def _strays(self) -> FollowedGrid:
        """A grid for the rows of a folder without `grids.jsonl`, or of one that was cut off."""
        specs = [s for s in self._specs_of_rows() if self._grids.home_of(s) is None]
        old = self.experiment.parent_of(self._keys_of_rows())
        grid = FollowedGrid(grid_key(self.out, specs), self.out.name, specs)
        grid.parent, grid.ended = old, ("FINISHED", 0.0)
        return grid

    def _specs_of_rows(self) -> Iterator[str]:
        for _, row in Tail(self.out / RESULTS_FILE).read():
            if isinstance(row.get("spec"), str):
                yield row["spec"]

    def _keys_of_rows(self) -> Iterator[str]:
        for _, row in Tail(self.out / RESULTS_FILE).read():
            if isinstance(row.get("key"), str):
                yield row["key"]

    def _open(self, grid: FollowedGrid) -> str:
        if not grid.parent:
            grid.parent = self.experiment.grid(grid.key, grid.name, grid.specs)
        return grid.parent

    def end(self, status: str, at: float) -> None:
        """Close all grids: nothing stays RUNNING. status: of those that never ended themselves.

        Raises as `write` does.
        """
        with self._anew_if_lost():
            self._end(status, at)

    def _end(self, status: str, at: float) -> None:
        for grid in self._grids.known.values():
            if grid.ended is not None and not grid.parent:
                continue  # it was over before, and nothing of it was written now
            parent = self._open(grid)
            self.experiment.kill_orphans(parent)
            ended, when = grid.ended or (status, at)
            self.experiment.close(parent, ended, when or at)
