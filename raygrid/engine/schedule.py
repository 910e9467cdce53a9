"""Which job may start next: ready ones only, the longest remaining way first.

Jobs are artifacts to be made and trials to be trained. Everything that computes goes through one
queue, so a trial that waits for an artifact holds nothing, and no cluster is too small to finish.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from raygrid.core.speed import CPU, Speed
from raygrid.engine.costs.estimate import trial_seconds
from raygrid.trials.artifacts import Artifact
from raygrid.trials.artifacts.shards import Joined, begun_counts, split
from raygrid.trials.trial import Trial

LEAST_SHARD = 60.0
"""Seconds of making that are worth a job of their own; starting one takes a few."""


@dataclass
class Job:
    """One unit of work: exactly one of `artifact` and `trial` is set.

    rank: seconds of the longest chain of jobs from here to the end of a trial.
    needs: keys of jobs that must be done first. reads: of all shared artifacts that it
    takes in, done or not. spec: a trial that leads to the artifact.
    pieces: into how many shards the poison is divided that it makes or belongs to.
    """

    key: str
    artifact: Artifact | None = None
    trial: Trial | None = None
    seconds: float = 0.0
    rank: float = 0.0
    needs: set[str] = field(default_factory=set)
    reads: tuple[str, ...] = ()
    spec: str = ""
    pieces: int = 1

    @property
    def work(self) -> Trial | Artifact:
        """What it is: the one of the two that is set."""
        if self.artifact is not None:
            return self.artifact
        assert self.trial is not None
        return self.trial

    @property
    def label(self) -> str:
        if self.artifact is not None:
            return f"{self.artifact.kind} {self.artifact.label}"
        assert self.trial is not None
        return str(self.trial.spec)


class Agenda:
    """The open jobs of a run. `take` hands out each job once; `finish` and `fail` close it.

    begun: the names of shards that are there or have a checkpoint.
    """

    def __init__(
        self,
        trials: Iterable[Trial],
        made: Callable[[Artifact], bool],
        speed: Speed = CPU,
        begun: Iterable[str] = (),
    ) -> None:
        self.speed = speed
        self._begun = begun_counts(begun)
        self.jobs: dict[str, Job] = {}
        self.reused: dict[str, Artifact] = {}
        self._made = made
        self._taken: set[str] = set()
        # From the trials down: an artifact that two trials need becomes one job, and one that is
        # in the store none, nor does what it was made of.
        for trial in trials:
            seconds = trial_seconds(trial, speed)
            job = Job(trial.key, trial=trial, seconds=seconds, spec=str(trial.spec))
            self.jobs[trial.key] = job
            self._need(job, trial.artifacts)
        self._order()

    def _order(self) -> None:
        """Who needs whom, which way is the longest, and what is ready."""
        self._users: dict[str, list[str]] = {}
        for job in self.jobs.values():
            job.rank = 0.0
            for need in job.needs:
                self._users.setdefault(need, []).append(job.key)
        for job in self.jobs.values():
            self._rank(job)
        self._ready: list[tuple[float, str]] = []
        for job in self.jobs.values():
            self._offer(job)

    def divide(self, slots: int, wanted: int | None = None) -> None:
        """Have long poisons made by several jobs, before the first job is taken.

        slots: how many artifacts can be made at a time; a shard takes `LEAST_SHARD` seconds or
        more. wanted: so many shards, however long they take. A poison of which some shards are
        `begun` stays divided as it is: this cluster may be larger or smaller than the last one.
        """
        for job in [job for job in self.jobs.values() if job.artifact is not None]:
            assert job.artifact is not None
            usual = self._begun.get(job.key, min(slots, int(job.seconds / LEAST_SHARD)))
            count = usual if wanted is None else wanted
            whole = split(job.artifact, count)
            if isinstance(whole, Joined):
                self._divide(job, whole)
        self._order()

    def _divide(self, job: Job, whole: Joined) -> None:
        job.artifact, job.pieces, job.needs, job.reads = whole, whole.count, set(), ()
        job.seconds = whole.seconds(self.speed)
        self._need(job, whole.needs())
        for key in job.needs:
            self.jobs[key].pieces = whole.count

    def _offer(self, job: Job) -> None:
        if not job.needs:
            heapq.heappush(self._ready, (-job.rank, job.key))

    def _need(self, job: Job, artifacts: Iterable[Artifact]) -> None:
        for artifact in artifacts:
            if artifact.instant:  # read or computed at once by whoever needs it: no job
                continue
            key = artifact.key
            job.reads += (key,) if artifact.shared else ()
            if key in self.reused:
                continue
            if key not in self.jobs:
                if self._made(artifact):
                    self.reused[key] = artifact
                    continue
                seconds = artifact.seconds(self.speed)
                made = Job(key, artifact=artifact, seconds=seconds, spec=job.spec)
                self.jobs[key] = made
                self._need(made, artifact.needs())
            job.needs.add(key)

    def _rank(self, job: Job) -> float:
        """The length of the longest way from a job to the end of a trial.

        Jobs on the longest way go first: a run cannot be shorter than that way.
        """
        if job.rank == 0.0:
            after = (self._rank(self.jobs[key]) for key in self._users.get(job.key, ()))
            job.rank = job.seconds + max(after, default=0.0)
        return job.rank

    def __len__(self) -> int:
        return len(self.jobs)

    def take(self) -> Job | None:
        """The ready job of highest rank, or None while every open job waits or runs."""
        # A job may stand here twice (ordered anew) or be closed by now; the heap is not searched
        # for such entries, they are passed over when they come up.
        while self._ready:
            _, key = heapq.heappop(self._ready)
            if key in self.jobs and key not in self._taken:
                self._taken.add(key)
                return self.jobs[key]
        return None

    def finish(self, key: str) -> None:
        """A job is done; what needed it needs it no longer."""
        if self.jobs.pop(key, None) is None:
            return
        self._taken.discard(key)
        for user in self._users.pop(key, ()):
            if user in self.jobs:
                self.jobs[user].needs.discard(key)
                self._offer(self.jobs[user])

    def fail(self, key: str) -> list[Job]:
        """A job cannot be done; closes and returns the jobs that needed it, at any distance."""
        if self.jobs.pop(key, None) is None:
            return []
        self._taken.discard(key)
        lost: list[Job] = []
        for user in self._users.pop(key, ()):
            if user in self.jobs:
                lost.append(self.jobs[user])
                lost += self.fail(user)
        return lost
