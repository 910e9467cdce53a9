"""What runs inside a Tune trial: one job, an artifact or a trial, in a reused process."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import time
import warnings
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune

from raygrid.core.device import Meter, check_room, device_name, limit_memory, release
from raygrid.core.device_errors import OUT_OF_MEMORY, trouble
from raygrid.core.errors import ClusterError, DeviceError, Moving, in_one_line
from raygrid.core.lazy import torch
from raygrid.core.options import Options
from raygrid.core.plugins import load_plugins
from raygrid.core.retry import patiently
from raygrid.engine import worker as work
from raygrid.engine.failures import lost_to
from raygrid.engine.ray import mps
from raygrid.engine.ray.object_cache import BrokerClient
from raygrid.engine.ray.preemption import Leaving
from raygrid.storage.store import Bundle
from raygrid.trials.artifacts import Artifact
from raygrid.trials.artifacts.shards import split
from raygrid.trials.catalog import Contents, ToldCatalog
from raygrid.trials.resolve import resolve
from raygrid.trials.trial import Trial

REPORT_EVERY = 1.0  # seconds; more reports cost the driver more than they tell a person
REPORT_AT_LEAST = 60.0  # seconds
LOGICAL_GPUS = "RAYGRID_LOGICAL_GPUS"
"""Set to 1 where Ray's GPUs are numbers without a card, as tests have them: CPUs do the work."""
NODE_FIELD = "node"  # the word under which a report names its node
REPORT_TIME_SHARE = 1 / 20
"""The most of its time that a job waits for the driver to take its reports."""


@dataclass(frozen=True)
class WorkerConfig:
    """All that a worker must know, the same for every job of a run.

    home: the driver's folder, from which the paths in specs are meant; empty: wherever it is.
    """

    options: Options
    contents: Contents
    version: str
    home: str = ""


@functools.cache
def _prepare(plugins: tuple[str, ...]) -> None:
    load_plugins(plugins)


def job_from_config(
    config: dict[str, Any], worker_config: WorkerConfig
) -> tuple[Trial, Artifact | None]:
    """The job that a config names; raises ClusterError if this worker sees another one."""
    _prepare(worker_config.options.imports)
    # Keys are computed anew here from the spec. With other code they would name other contents.
    if work.versions()["raygrid"] != worker_config.version:
        here = work.versions()["raygrid"]
        raise ClusterError(f"this worker has raygrid {here}, the driver {worker_config.version}")
    trial = resolve(config["spec"], ToldCatalog(worker_config.contents))
    if config["key"] == trial.key:
        return trial, None
    found = find_artifact(trial, config["key"], config["pieces"])
    if found is None:
        raise ClusterError(f"this worker computes other keys for {config['spec']}; same code?")
    return trial, found


def find_artifact(trial: Trial, key: str, pieces: int) -> Artifact | None:
    """The artifact of that key among all that a trial needs, at any distance.

    pieces: into how many shards poisons are divided.
    """
    stack = list(trial.artifacts)
    while stack:
        artifact = split(stack.pop(), pieces)
        if artifact.key == key:
            return artifact
        stack.extend(artifact.needs())
    return None


def shared_bundle(client: BrokerClient, artifact: Artifact) -> Bundle | None:
    """An artifact from the object store without copying it."""
    loaded = client.fetch(artifact.kind, artifact.key)
    if loaded is None:
        return None
    arrays, facts = loaded
    with warnings.catch_warnings():  # shared pages are read-only; nobody writes to images
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return Bundle({name: torch.from_numpy(a) for name, a in arrays.items()}, facts)


def node_name() -> str:
    """The node of this worker and its GPUs, for a person."""
    context = ray.get_runtime_context()
    gpus = context.get_accelerator_ids().get("GPU", [])
    node = ray.util.get_node_ip_address()
    return f"{node} GPU {','.join(gpus)}" if gpus else node


def gpu_share() -> float:
    """The part of a GPU that this worker holds: after a lack of memory more than was planned."""
    return float(ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0))


def device_for(share: float) -> torch.device:
    """The device of a job that holds this part of a GPU: the first that it may see, else the CPU.

    A job without a part leaves GPUs alone: Ray need not have hidden them. Raises DeviceError where
    Ray counts a GPU and torch sees none, since a CPU would hold that part for days.
    """
    device = work.best_device() if share else torch.device("cpu")
    if share and device.type == "cpu" and os.environ.get(LOGICAL_GPUS) != "1":
        raise DeviceError(
            f"GPUs that Ray counts for this process on {platform.node()}: {share:g}, but torch "
            f"{torch.__version__} sees none there: the driver is older than this build of torch "
            "needs, the build is one for CPUs, or MPS is broken (--no-mps); to train on CPUs set "
            "CUDA_VISIBLE_DEVICES to nothing where Ray starts"
        )
    return device


def tell(**words: str) -> None:
    """Report to the driver, and from which of Ray's nodes."""
    tune.report({**words, NODE_FIELD: ray.get_runtime_context().get_node_id()})


class Reporter:
    """Passes metrics on to Tune, and what a GPU has to give, at most one report a second.

    A report lasts until the driver has taken it: where it serves so many workers that this takes
    long, they report less often, but several times before the deadline for a silent job.
    """

    def __init__(self, meter: Meter, deadline: float | None = None) -> None:
        self._next = 0.0
        self.where = node_name()
        self.meter = meter
        self.at_least = min(REPORT_AT_LEAST, deadline / 4) if deadline else REPORT_AT_LEAST

    def __call__(self, metrics: dict[str, float]) -> None:
        started = time.monotonic()
        if started >= self._next:
            tell(metrics=json.dumps(metrics), where=self.where, **self._taken())
            waited = time.monotonic() - started
            self._next = started + min(max(REPORT_EVERY, waited / REPORT_TIME_SHARE), self.at_least)

    def _taken(self) -> dict[str, str]:
        if self.meter.device.type == "cpu":
            return {}
        facts = {"device": device_name(self.meter.device), **self.meter.facts()}
        return {"taken": json.dumps(facts)}

    def progress(self, done: int, total: int, before: int) -> None:
        self({"done": float(done), "total": float(total), "before": float(before)})


def worker_for(worker_config: WorkerConfig, device: torch.device) -> work.Worker:
    """What does the jobs of a run in this process, with artifacts from the object store."""
    from raygrid.storage.mirrored import open_store

    client = BrokerClient(worker_config.options.store_url, worker_config.version)
    return work.Worker(
        patiently(lambda: open_store(worker_config.options.store_url)),
        worker_config.options,
        device,
        load=functools.partial(shared_bundle, client),
        leaving=Leaving(),
    )


def run_job(config: dict[str, Any], worker_config: WorkerConfig) -> None:
    """Do one job; the last report carries the outcome as JSON text.

    A lack of memory is raised for the driver to see. After any other error of the device the
    process says so and ends.
    """
    if worker_config.home:
        with contextlib.suppress(OSError):  # this machine has no such folder
            os.chdir(worker_config.home)  # Tune has put the process into one of its own
    trial, artifact = job_from_config(config, worker_config)
    try:
        _do(trial, artifact, worker_config)
    except Moving:
        os._exit(1)  # a worker lost on a node that leaves: Tune goes on elsewhere, uncounted
    except Exception as error:
        fault = trouble(error)
        if fault == "memory":
            raise torch.OutOfMemoryError(f"{OUT_OF_MEMORY}: {error}") from error
        if fault == "lost" or isinstance(error, DeviceError):
            tell(lost=f"{type(error).__name__}: {in_one_line(error)}")
            os._exit(1)  # what CUDA says from here on is not to be trusted, by no job
        raise


def _do(trial: Trial, artifact: Artifact | None, worker_config: WorkerConfig) -> None:
    """Train the trial, or make the artifact on its way."""
    # All of this before CUDA is first used in the process, which fixes what it sees and may take.
    share = gpu_share()
    if worker_config.options.mps:
        mps.use_mps(share)
    meter = Meter(device_for(share), share)
    limit_memory(meter.device, share)
    check_room(meter.device, share)
    worker = worker_for(worker_config, meter.device)
    report = Reporter(meter, worker_config.options.deadline)
    if artifact is None:
        result = worker.run(trial, report, raise_device=True, meter=meter)
        tell(row=json.dumps(result.row()))  # back when the driver has written it
        worker.forget(trial, result)
    else:
        tell(artifact=json.dumps(_make(worker, artifact, report)))
        release(meter.device)


def _make(worker: work.Worker, artifact: Artifact, report: Reporter) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        bundle, made = worker.make(artifact, report.progress)
    except Exception as error:
        if trouble(error):
            raise
        status, why = lost_to(error)
        return {"state": status, "error": why}
    seconds = time.perf_counter() - started
    taken = {"memory_mb": report.meter.memory_mb, "bytes": bundle.nbytes}
    return {"state": "made" if made else "reused", "seconds": seconds, **taken}
