"""What Ray Tune runs next: a searcher that hands out ready jobs, a scheduler that ranks them."""

from __future__ import annotations

import functools
from typing import Any

from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from raygrid.engine import notice
from raygrid.engine.costs.gpu_share import Sharing
from raygrid.engine.ray.private import Controller
from raygrid.engine.ray.resources import request, share_of
from raygrid.engine.ray.worker import NODE_FIELD
from raygrid.engine.schedule import Agenda, Job


class ReadyFirst(Searcher):  # type: ignore[misc]
    """Suggests the next ready job; says nothing while all open jobs wait, so nothing is held."""

    def __init__(self, agenda: Agenda, sharing: Sharing) -> None:
        super().__init__(metric="done", mode="max")
        self.agenda = agenda
        self.sharing = sharing

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves its searcher for a restore that raygrid never does

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if not len(self.agenda):
            return str(Searcher.FINISHED)
        job = None if notice.given() else self.agenda.take()
        return None if job is None else config_of(job, self.sharing)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None: ...

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...


class LongestFirst(FIFOScheduler):  # type: ignore[misc]
    """Chooses among the trials that wait: the highest rank, and none whose worker is starting.

    Tune's own scheduler gives a free worker to the oldest waiting trial. That is the one for which
    a worker is being started, which Tune then ends: with short jobs the rest of the machine starts
    workers for ever and does no work. Ranks change nothing about which jobs are ready. Among
    equals that one goes first whose artifacts are on the free worker's node.
    """

    def __init__(self, agenda: Agenda, sharing: Sharing) -> None:
        super().__init__()
        self.agenda = agenda
        self.sharing = sharing
        self._outgrown = 0
        self._node: dict[Any, str] = {}
        self._held: dict[str, set[str]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves its scheduler for a restore that raygrid never does

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        if notice.given():
            return None
        controller = Controller(tune_controller)
        # A kind of trials has outgrown its share of a GPU: those that wait must ask for the larger
        # one now, or each of them would run out of memory in its turn.
        if self._outgrown != self.sharing.outgrown:
            self._outgrown = self.sharing.outgrown
            for trial in controller.pending():
                self._enlarge(controller, trial)
            controller.sort_pending()
        # A trial for which a worker is being started keeps that worker; the free ones go to the
        # others, and a free worker comes before one that would have to be started.
        waiting = [trial for trial in controller.pending() if not controller.starting(trial)]
        served = [trial for trial in waiting if controller.has_free_worker(trial)]
        first = max(map(self._rank, served or waiting), default=0.0)
        equal = [trial for trial in served or waiting if self._rank(trial) == first]
        return max(equal, key=functools.partial(self._at_hand, controller), default=None)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> Any:
        """Note which worker is on which node, and which artifacts have come there."""
        actor = Controller(tune_controller).worker(trial)
        job = self.agenda.jobs.get(trial.config["key"])
        if actor is not None and job is not None and NODE_FIELD in result:
            self._node[actor] = result[NODE_FIELD]
            self._held.setdefault(result[NODE_FIELD], set()).update(job.reads)
        return super().on_trial_result(tune_controller, trial, result)

    def _at_hand(self, controller: Controller, trial: Any) -> tuple[int, int]:
        """How many of its artifacts are on the node of the worker that a trial would get.

        Then, negative, on how many nodes they are: what nobody has begun comes before what others
        go on with. Only a preference among equals: a placement group that names a node makes
        workers for that node alone, and starting another takes longer than fetching an artifact.
        """
        free = controller.free_worker(trial)
        job = self.agenda.jobs.get(trial.config["key"])
        if len(self._held) < 2 or free is None or job is None:
            return 0, 0
        held = self._held.get(self._node.get(free, ""), set())
        here = sum(key in held for key in job.reads)
        return here, -sum(key in node for node in self._held.values() for key in job.reads)

    def _rank(self, trial: Any) -> float:
        job = self.agenda.jobs.get(trial.config["key"])
        return job.rank if job is not None else 0.0

    def _enlarge(self, controller: Controller, trial: Any) -> None:
        """A trial that waits for a share that has since proved too small waits for a larger one."""
        job = self.agenda.jobs.get(trial.config["key"])
        share = self.sharing.share(job.work) if job is not None else 0.0
        if share > share_of(trial.placement_group_factory):
            controller.change_resources(trial, request({"gpu": share}))


def config_of(job: Job, sharing: Sharing) -> dict[str, Any]:
    """The job's key, a spec that leads to it, its shards, and its share of a GPU."""
    share = sharing.share(job.work)
    return {"key": job.key, "spec": job.spec, "pieces": job.pieces, "gpu": share}
