"""What raygrid needs of Ray beyond its documented interface: all of it, one function a need.

No other file of this room touches a private name of Ray or Tune. `PRIVATE_ATTRIBUTES` lists the
names with what they are for; a test looks each of them up in the installed Ray and names the first
one that a new release lacks, so that a change of Ray shows here and not in the middle of a grid.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

from raygrid.core.errors import ClusterError, in_one_line
from raygrid.core.retry import retried, until

NODE_START_SECONDS = 90.0
"""Seconds that Ray's node may take to be there."""
RAY_WAITS = {"RAY_agent_register_timeout_ms": 1000, "RAY_gcs_server_port_wait_time_s": 1}
"""Variables by which Ray's processes wait for each other, and their units in a second."""
TUNE_CONTROLLER = "ray.tune.execution.tune_controller:TuneController"
TUNE_OBJECT_CACHE = "ray.tune.utils.object_cache:_ObjectCache"
ACTOR_MANAGER = "ray.air.execution._internal.actor_manager:RayActorManager"
PRIVATE_ATTRIBUTES: Mapping[str, str] = {
    "ray._private.ray_constants:ENABLE_RAY_CLUSTER": "a cluster of one machine is on loopback",
    "ray._private.state:GlobalState.get_draining_nodes": "a worker saves before its node leaves",
    "ray._private.worker:_global_node": "a Ray of this machine has lost its only node",
    "ray._private.node:Node.all_processes": "the same",
    "ray._private.services:get_node": "Ray may take more than 30 s to start",
    "ray.autoscaler._private.util:prepare_config": "a cluster file is checked before it is used",
    "ray.autoscaler._private.util:validate_config": "the same",
    "ray._raylet:Config.initialize": "a token is sent to a cluster whose file asks for one",
    "ray._raylet:AuthenticationTokenLoader.has_token": "whether there is one to send",
    "ray._raylet:GcsClient": "a spot notice is passed on to Ray",
    "ray._raylet:InnerGcsClient.drain_node": "the same; its calls are those of `GcsClient`",
    "ray.air._internal.usage:tag_callbacks": "Tune does not import MLflow to count callbacks",
    "ray.tune.execution.class_cache:DEFAULT_ENV_VARS": "workers need no runtime environment",
    "ray.tune.execution.class_cache:ENV_VARS_TO_PROPAGATE": "cloud keys stay out of Ray's logs",
    "ray.tune.execution.tune_controller:TrialRunnerWrapper._tune_controller": "all that follows",
    f"{TUNE_CONTROLLER}._pending_trials": "which trials wait",
    f"{TUNE_CONTROLLER}._pending_trials_list": "the order in which they are given a place",
    f"{TUNE_CONTROLLER}._resources_to_pending_trials": "which trials wait for which resources",
    f"{TUNE_CONTROLLER}._staged_trials": "which of them hold a place that has not come yet",
    f"{TUNE_CONTROLLER}._resetting_trials": "which of them are about to get a used worker",
    f"{TUNE_CONTROLLER}._trial_to_actor": "the worker of a trial",
    f"{TUNE_CONTROLLER}._actor_to_trial": "the trial of a worker",
    f"{TUNE_CONTROLLER}._remove_actor": "a place that is no longer wanted is given back",
    f"{TUNE_CONTROLLER}._actor_manager": "whether a worker has started",
    f"{TUNE_CONTROLLER}._actor_cache": "which workers are free",
    f"{ACTOR_MANAGER}.is_actor_started": "whether a worker has started",
    f"{ACTOR_MANAGER}._actor_task_failed": "a worker that Ray ends for want of memory is lost",
    f"{TUNE_OBJECT_CACHE}.has_cached_object": "whether a worker is free for these resources",
    f"{TUNE_OBJECT_CACHE}._cached_objects": "which free worker a trial would get",
    f"{TUNE_OBJECT_CACHE}.decrease_max": "a place that is no longer wanted is not kept",
    "ray.tune.experiment.trial:_TemporaryTrialState.ray_actor": "the worker of a silent trial",
    "ray.tune.experiment.trial:Trial.run_metadata": "how often a trial has failed",
    "ray.tune.experiment.trial:Trial.max_failures": "how often it may fail",
    "ray.tune.experiment.trial:Trial.error_file": "why it failed",
    "ray.tune.experiment.trial:Trial.update_resources": "a larger share after running out",
}
"""`module:attribute`, or `module:Class.attribute`, and what needs it."""


def quiet_tune() -> None:
    """Keep Tune from two things that it does for every run, unasked.

    It would hand its workers some of the driver's variables, keys of the cloud among them, as a
    runtime environment: Ray writes that into its logs, and starts a second process for every
    worker. Nodes have variables and credentials of their own. And to count callbacks for usage
    statistics, which are off, it would import MLflow: two seconds.
    """
    from ray.air._internal import usage
    from ray.tune.execution import class_cache

    class_cache.DEFAULT_ENV_VARS.clear()
    class_cache.ENV_VARS_TO_PROPAGATE.clear()
    usage.tag_callbacks = lambda callbacks: False


def lost_for_memory() -> None:
    """Have Tune take a worker that Ray ended for want of memory, or with its node, for a lost one.

    Since 2.56 Ray tells of it by an error of its own kind, which Tune does not know: it would end
    the whole run.
    """
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError

    fail = RayActorManager._actor_task_failed

    @functools.wraps(fail)
    def failed(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError | NodeDiedError):
            exception = RayActorError(error_msg=str(exception))
        fail(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = failed


@contextlib.contextmanager
def on_loopback() -> Iterator[None]:
    """Ray's own processes, started meanwhile, listen on loopback alone.

    The variable that says so is read when Ray is imported, which has happened by now.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def patient_start(seconds: float = NODE_START_SECONDS) -> Iterator[None]:
    """Ray, started meanwhile, may take so long until its node is there.

    By itself it gives up after 30 s, which are over before it is up on a busy machine. Its node
    gives up on its own agents, and its driver on the node: the one has a setting, the other none,
    so each of its questions after the node waits here instead.
    """
    from ray._private import services

    for name, unit in RAY_WAITS.items():
        os.environ.setdefault(name, f"{seconds * unit:.0f}")
    ask = services.get_node

    def get_node(*given: Any) -> Any:
        pauses = until(seconds, 0.2)
        return retried(lambda: ask(*given), pauses, lambda error: isinstance(error, RuntimeError))

    services.get_node = get_node
    try:
        yield
    finally:
        services.get_node = ask


def check_cluster_config(config: dict[str, Any]) -> None:
    """Raise ClusterError, in one line, for a cluster file's content that Ray would refuse."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    logging.getLogger("ray.autoscaler").setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it talks of what it fills in
            validate_config(prepare_config(copy.deepcopy(config)))
    except Exception as error:  # jsonschema's, and whatever a provider raises
        raise ClusterError(f"Ray refuses it: {in_one_line(error)}") from None


def read_auth_mode() -> None:
    """Have Ray read `RAY_AUTH_MODE` again, which it has kept since its first use."""
    import ray

    ray._raylet.Config.initialize("")


def has_token() -> bool:
    """Whether there is a token to send, be it sent or not."""
    import ray

    return bool(ray._raylet.AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True))


def own_node_lives() -> bool:
    """Whether the node that was started here is there; true where none was."""
    import ray

    node = ray._private.worker._global_node
    started = [] if node is None else node.all_processes.get("raylet", [])
    return all(info.process.poll() is None for info in started)


def draining_nodes() -> set[str]:
    """Ids of the nodes that are about to leave."""
    import ray

    return set(ray._private.state.state.get_draining_nodes())


def drain_node(address: str, node: str, until_ms: int) -> None:
    """Tell the cluster at `address` (host:port) that a spot node goes at a time, ms since 1970."""
    import ray
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    client = ray._raylet.GcsClient(address=address)
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    client.drain_node(node, reason, "spot notice", until_ms)


def worker_of(trial: Any) -> Any:
    """The actor that runs a Tune trial, or None."""
    return trial.temporary_state.ray_actor


def last_try(trial: Any) -> None:
    """Have Tune give a trial up when it fails again."""
    trial.max_failures = min(trial.max_failures, trial.run_metadata.num_failures)


class Controller:
    """Tune's controller, as a scheduler is given it, with what a scheduler is not meant to see."""

    def __init__(self, wrapper: Any) -> None:
        self._inner = wrapper._tune_controller

    def pending(self) -> list[Any]:
        """All trials that wait for a place."""
        return list(self._inner._pending_trials)

    def starting(self, trial: Any) -> bool:
        """Whether a worker of its own has been placed for a trial that does not run yet."""
        actor = self.worker(trial)
        return actor is not None and self._inner._actor_manager.is_actor_started(actor)

    def worker(self, trial: Any) -> Any:
        """The tracked worker of a trial, or None."""
        return self._inner._trial_to_actor.get(trial)

    def has_free_worker(self, trial: Any) -> bool:
        """Whether a used worker with the resources of a trial is free."""
        return bool(self._inner._actor_cache.has_cached_object(trial.placement_group_factory))

    def free_worker(self, trial: Any) -> Any:
        """The used worker that a trial would get, or None."""
        free = self._inner._actor_cache._cached_objects.get(trial.placement_group_factory)
        return free[0] if free else None

    def change_resources(self, trial: Any, resources: Any) -> None:
        """Change what a waiting trial asks for, unless a worker is being made ready for it.

        The place that it asked for is given back first: Tune would otherwise wait for it.
        """
        inner = self._inner
        if self.starting(trial) or trial in inner._resetting_trials:
            return
        actor = inner._trial_to_actor.pop(trial, None)
        if actor is not None:
            inner._actor_to_trial.pop(actor)
            inner._remove_actor(actor)
        if trial in inner._staged_trials:
            inner._staged_trials.remove(trial)
            inner._actor_cache.decrease_max(trial.placement_group_factory)
        trial.update_resources(resources)
        inner._pending_trials_list.append(trial)

    def sort_pending(self) -> None:
        """Trials that wait under resources that they no longer ask for wait under their new ones.

        A retry with a larger share changes the resources of a trial that Tune has filed already.
        """
        waiting = self._inner._resources_to_pending_trials
        moved = [
            (old, trial)
            for old in waiting
            for trial in waiting[old]
            if trial.placement_group_factory != old
        ]
        for old, trial in moved:
            waiting[old].discard(trial)
            waiting[trial.placement_group_factory].add(trial)
