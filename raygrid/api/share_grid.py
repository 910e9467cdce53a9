"""A grid that several drivers share, each on a machine of its own: none runs what another has.

    OUT/shared/             the store of all of them, with the rows and with who claims what
    OUT/drivers/<number>/   what one of them writes beside that: its rows, its status

Each takes a part of what is open, runs it like any grid, and looks again. There is no one in
charge, so drivers may come, go and be lost at any time.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

from raygrid.api.run_grid import is_open, make_plan, run_grid
from raygrid.core.driver import Driver
from raygrid.core.errors import ClaimedError, Moving, StoreError
from raygrid.core.options import Options
from raygrid.core.retry import patiently
from raygrid.core.spec import TrialSpec
from raygrid.engine import notice
from raygrid.engine.events import Listener
from raygrid.engine.grid import Plan
from raygrid.storage.claims import Claim, claimed_keys, shared_side
from raygrid.storage.mirrored import open_store
from raygrid.storage.results import RESULTS_FILE
from raygrid.storage.store import Store
from raygrid.trials.artifacts import Artifact
from raygrid.trials.trial import Trial

log = logging.getLogger(__name__)
LEAST_TRIALS = 4
"""Trials of a part, where there are so many; a part costs the start of its workers."""
POLL_SECONDS = 5.0  # seconds until a driver looks again for what others have finished
DRIVERS_FOLDER, SHARED_STORE = "drivers", "shared"
ForPart = Callable[[Options], AbstractContextManager[Iterable[Listener]]]
"""Makes the listeners of one part of a grid, from its options."""


def shared_options(options: Options) -> Options:
    """The same run with a store that drivers of several machines may share: one with a URL."""
    if "://" in options.store_url:
        return options
    folder = Path(options.store) if options.store else options.out / SHARED_STORE
    return replace(options, store=folder.absolute().as_uri())


@dataclass(frozen=True)
class SharedGrid:
    """A grid at the end of one driver's work.

    options: with which all rows are found. others: trials that other drivers still run. finished,
    failed: all others, by what became of them.
    """

    options: Options
    others: list[TrialSpec]
    finished: list[TrialSpec]
    failed: list[TrialSpec]


def share_grid(
    specs: Sequence[TrialSpec | str],
    options: Options,
    listeners: ForPart = lambda options: contextlib.nullcontext(()),
) -> SharedGrid:
    """Run what no other driver has, until nothing is left to take.

    listeners: made anew for each part, with its options. Raises Moving after a notice.
    """
    driver = Driver.parse(options.driver or "")
    whole = replace(shared_options(options), driver=None)
    own = replace(whole, out=options.out / DRIVERS_FOLDER / str(driver.number), tracking="off")
    plan, store, _ = make_plan(specs, whole)
    current_view = functools.partial(View.of, plan, store, own, time.time())
    while True:
        if notice.given():
            raise Moving("this driver has to go")
        view = patiently(current_view)
        if not view.free and (view.blocked or view.others):  # unless their drivers are dead
            view = patiently(functools.partial(current_view, watch=True))
        if view.free:
            _run_part(view.part(driver), own, listeners)
        elif view.blocked:
            time.sleep(POLL_SECONDS)
        else:
            return _ended(plan, whole, view)


def _ended(plan: Plan, whole: Options, view: View) -> SharedGrid:
    """What became of all; a derived trial fails, and waits for others, with any of its bases."""
    others, lost = ({str(trial.spec) for trial in part} for part in (view.others, view.lost))
    finished: list[TrialSpec] = []
    failed: list[TrialSpec] = []
    for trial in (*plan.trials, *plan.derived):
        names = {str(spec) for spec in (trial.spec, *trial.bases)}
        if names.isdisjoint(others):
            (finished if names.isdisjoint(lost) else failed).append(trial.spec)
    return SharedGrid(whole, [trial.spec for trial in view.others], finished, failed)


@contextlib.contextmanager
def exclusive_tables(options: Options) -> Iterator[bool]:
    """Whether it falls to this driver to write the tables of the whole grid, in this block."""
    store = patiently(lambda: open_store(options.store_url))
    claim = Claim(shared_side(store), frozenset(["tables"]))
    try:
        patiently(claim.take)
    except ClaimedError:
        yield False
        return
    try:
        yield True
    finally:
        claim.release()


def _run_part(
    part: Sequence[Trial],
    options: Options,
    listeners: ForPart,
) -> None:
    try:
        with listeners(options) as members:
            run_grid([trial.spec for trial in part], options, *members)
    except StoreError as error:  # another driver was a moment earlier, or the store is away
        if not (isinstance(error, ClaimedError) or error.passing):
            raise
        log.info("%s; looking for other trials", error)
        time.sleep(random.uniform(0, POLL_SECONDS))


@dataclass(frozen=True)
class View:
    """What is open at a moment.

    others: trials that drivers claim. blocked: open trials that need an artifact which another
    driver makes, or will. lost: those that this run has tried in vain. free: all the rest.
    """

    free: list[Trial]
    blocked: list[Trial]
    others: list[Trial]
    lost: list[Trial] = field(default_factory=list)

    @classmethod
    def of(
        cls, plan: Plan, store: Store, options: Options, began: float, watch: bool = False
    ) -> View:
        """Look at the rows and claims of all drivers, after sending them what they lack of here.

        began: seconds since 1970; a trial that failed after that, or did not leave what is to be
        kept, is not tried again by this run.
        watch: make sure that those who claim something live.
        """
        log = store.results(options.out.absolute() / RESULTS_FILE)
        log.close()  # a part that ended while the store was away has rows that nobody else sees
        status = {row["key"]: row["status"] for row in log.rows()}
        tried = {row["key"] for row in log.attempts(since=began)}
        open_: list[Trial] = []
        lost: list[Trial] = []
        for trial in plan.trials:
            if is_open(status.get(trial.key, "failed"), trial.key, store, options.keep):
                (lost if trial.key in tried else open_).append(trial)
        taken = claimed_keys(shared_side(store), (trial.key for trial in open_), watch)
        others = [trial for trial in open_ if trial.key in taken]
        unmade = Unmade(store)
        theirs = {key for trial in others for key in unmade(trial.artifacts)}
        free: list[Trial] = []
        blocked: list[Trial] = []
        for trial in open_:
            if trial.key not in taken:
                (blocked if theirs.intersection(unmade(trial.artifacts)) else free).append(trial)
        return cls(free, blocked, others, lost)

    def part(self, driver: Driver) -> list[Trial]:
        """What a driver takes next: half of its share of what is free.

        Each begins at another place, so that drivers that start together do not meet.
        """
        size = max(LEAST_TRIALS, math.ceil(len(self.free) / (2 * driver.count)))
        start = driver.number * len(self.free) // driver.count
        return (self.free[start:] + self.free[:start])[:size]


class Unmade:
    """The keys of artifacts that a store lacks, at any distance; each is looked up once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._there: dict[str, bool] = {}

    def __call__(self, artifacts: Iterable[Artifact]) -> Iterator[str]:
        for artifact in artifacts:
            if artifact.instant:
                continue
            key = artifact.key
            if key not in self._there:
                self._there[key] = self.store.has(artifact.kind, key)
            if not self._there[key]:
                yield key
                yield from self(artifact.needs())
