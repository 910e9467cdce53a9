"""Before a grid runs: what its kinds of trials take of the GPUs at hand, where nobody knows yet."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ray

from raygrid.core.device import settle
from raygrid.core.options import Options
from raygrid.core.plugins import load_plugins
from raygrid.engine.costs import throughput
from raygrid.engine.costs.gpu_share import GPU_SHARES
from raygrid.engine.costs.measure import Rehearsal, can_measure
from raygrid.engine.costs.profiles import Profiles, kind
from raygrid.engine.ray import mps
from raygrid.engine.ray.worker import WorkerConfig, device_for
from raygrid.nn import graphs
from raygrid.trials.catalog import Contents, ToldCatalog
from raygrid.trials.resolve import resolve
from raygrid.trials.trial import Trial

log = logging.getLogger(__name__)
LEAST_TRIALS_MEASURED = 4
"""So many trials of a kind make it worth to be measured first; fewer learn as they run."""
PROFILING_SECONDS = 600.0  # seconds for all; what is not measured by then is learned as it runs

MeasureOnWorker = Callable[[str, WorkerConfig], dict[str, Any]]


def on_worker(spec: str, worker_config: WorkerConfig) -> dict[str, Any]:
    """Measure trials on the GPU of this process: one, then more of them at once, as in a run."""
    if worker_config.options.mps:
        mps.use_mps(min(GPU_SHARES))
    return throughput.measure(
        functools.partial(rehearsal, spec, worker_config.contents, worker_config.options)
    )


def rehearsal(spec: str, contents: Contents, options: Options) -> Rehearsal:
    """A trial that trains on noise on the GPU of the process that calls."""
    load_plugins(options.imports)
    graphs.SWITCH.on = options.graphs
    device = device_for(1.0)
    settle(device)
    return Rehearsal(resolve(spec, ToldCatalog(contents)), device)


def profile_kinds(
    trials: Sequence[Trial],
    profiles: Profiles,
    worker_config: WorkerConfig,
    note: Callable[[str], None],
    patience: float = PROFILING_SECONDS,
    how: MeasureOnWorker = on_worker,
) -> int:
    """Measure one trial of every unknown kind, each alone on a GPU of every kind that is there.

    Nothing waits for GPUs that the cluster might still get: trials teach those as they run. One
    that fails or takes too long is left to that as well. Returns how many were measured.
    """
    wanted = {gpu: unprofiled(trials, profiles, gpu) for gpu in gpus_at_hand()}
    tasks = {}
    for gpu, chosen in wanted.items():
        # A whole GPU, so that nobody shares it; the process ends and leaves nothing there.
        task = ray.remote(max_calls=1, max_retries=1, num_gpus=1, accelerator_type=gpu)(how)
        if chosen:
            note(f"measuring {len(chosen)} kinds of trials on {gpu}")
        for trial in chosen:
            tasks[task.remote(str(trial.spec), worker_config)] = gpu, trial
    if not tasks:
        return 0
    ready, late = ray.wait(list(tasks), num_returns=len(tasks), timeout=patience)
    for ref in late:
        ray.cancel(ref, force=True)
    return sum(_learned(ref, *tasks[ref], profiles) for ref in ready)


def gpus_at_hand() -> list[str]:
    """The kinds of GPUs of the nodes that are there, as Ray names those that it knows."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    names = (key for held in nodes if held.get("GPU") for key in held)
    return sorted({n.partition(":")[2] for n in names if n.startswith("accelerator_type:")})


def unprofiled(trials: Iterable[Trial], profiles: Profiles, gpu: str) -> list[Trial]:
    """The cheapest trial of each kind that has several trials and was never measured there."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        if can_measure(trial):
            groups.setdefault(kind(trial), []).append(trial)
    known = profiles.known.get(gpu, {})
    return [
        min(group, key=lambda trial: trial.defense.cost)
        for name, group in groups.items()
        if not (name in known and known[name].together) and len(group) >= LEAST_TRIALS_MEASURED
    ]


def _learned(ref: Any, gpu: str, trial: Trial, profiles: Profiles) -> bool:
    try:
        profiles.learn(trial, ray.get(ref))
    except ray.exceptions.RayError as error:
        log.warning("%s was not measured on %s: %s", kind(trial), gpu, str(error).splitlines()[-1])
        return False
    return kind(trial) in profiles.known.get(gpu, {})
