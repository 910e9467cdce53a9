"""A driver that has to go: every node drains, jobs save their state, then the run stops."""

from __future__ import annotations

import logging
from typing import Any

import ray
from ray.tune import Callback

from raygrid.core.errors import Moving
from raygrid.engine import notice
from raygrid.engine.ray.preemption import drain

log = logging.getLogger(__name__)


class Evacuation(Callback):  # type: ignore[misc]
    """Stops a run with `Moving` after a notice, as soon as no job runs any more.

    By then the queue hands out nothing new.
    """

    def __init__(self) -> None:
        self._running: set[str] = set()
        self._told = self._listens = False

    def __getstate__(self) -> dict[str, Any]:
        return {}  # saved by Tune, never restored

    def on_step_begin(self, iteration: int, trials: list[Any], **_: Any) -> None:
        if not self._listens:  # Tune takes the signal for itself when it begins, to stop half-way
            self._listens = True
            notice.listen()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._running.add(trial.trial_id)

    def _over(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._running.discard(trial.trial_id)

    on_trial_complete = on_trial_error = on_trial_recover = _over

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        if not notice.given():
            return
        if not self._told:
            self._told = True
            drain_all()
        if not self._running:
            raise Moving("the driver has to go")


def drain_all() -> None:
    """Tell every node of the cluster that it is about to leave; its jobs ask once a second."""
    address = ray.get_runtime_context().gcs_address
    for node in ray.nodes():
        if node["Alive"]:
            try:
                drain(address, node["NodeID"])
            except Exception as error:  # the jobs of that node end with the driver, unsaved
                log.warning("node %s cannot be drained: %s", node["NodeID"], error)
