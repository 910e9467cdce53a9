"""Runs an agenda on a Ray cluster through one Tuner."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_DEDUP_LOGS": "1",
    # Under `uv run` Ray would pack the whole folder, data and all, and start workers through uv.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}
# A cluster of this machine alone listens on loopback, as Ray has it by itself on macOS and Windows,
# and serves no metrics, which no token guards.
OWN_RAY_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_enable_metrics_collection": "0",
    "AUTOSCALER_METRIC_PORT": "-1",
    "DASHBOARD_METRIC_PORT": "-1",
}
for _name, _value in TUNE_ENVIRONMENT.items():  # Tune reads some of them while it is imported
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from ray import tune  # noqa: E402

from raygrid.core.errors import (  # noqa: E402
    ClusterError,
    Moving,
    RaygridError,
    StartError,
    in_one_line,
)
from raygrid.core.options import TRIALS_PER_GPU, Options  # noqa: E402
from raygrid.core.retry import retried  # noqa: E402
from raygrid.core.secrets import shown  # noqa: E402
from raygrid.engine.costs.gpu_share import Sharing, too_large  # noqa: E402
from raygrid.engine.costs.profiles import Profiles  # noqa: E402
from raygrid.engine.events import Listener  # noqa: E402
from raygrid.engine.ray import leftovers, sockets  # noqa: E402
from raygrid.engine.ray.address import check_port  # noqa: E402
from raygrid.engine.ray.callbacks import (  # noqa: E402
    AgendaCallback,
    NodeWatch,
    Watchdog,
)
from raygrid.engine.ray.evacuation import Evacuation  # noqa: E402
from raygrid.engine.ray.object_cache import start_broker  # noqa: E402
from raygrid.engine.ray.open_files import check_open_files  # noqa: E402
from raygrid.engine.ray.private import (  # noqa: E402
    lost_for_memory,
    on_loopback,
    patient_start,
    quiet_tune,
)
from raygrid.engine.ray.profile import profile_kinds  # noqa: E402
from raygrid.engine.ray.queue import (  # noqa: E402
    LongestFirst,
    ReadyFirst,
)
from raygrid.engine.ray.resources import (  # noqa: E402
    gpu_kind,
    promised,
    request,
    slots,
)
from raygrid.engine.ray.worker import (  # noqa: E402
    WorkerConfig,
    device_for,
    run_job,
)
from raygrid.engine.schedule import Agenda  # noqa: E402
from raygrid.engine.worker import versions  # noqa: E402
from raygrid.trials.catalog import Contents  # noqa: E402

quiet_tune()
lost_for_memory()
log = logging.getLogger(__name__)
MAX_FAILURES = 8
"""Lost workers and nodes a job survives; its own errors are rows and never retried."""


@contextlib.contextmanager
def connected(
    address: str | None = None,
    cpus: int | None = None,
    gpus: int | None = None,
    out: Path | None = None,
) -> Iterator[None]:
    """A connection to Ray; a cluster that was started here ends with it.

    address: of a live cluster; without one Ray starts here, on so many CPUs and GPUs, all by
    default. out: the folder of the run, which remembers what was started until it is ended.
    """
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    ends = signal.getsignal(signal.SIGTERM)
    try:
        if address:
            check_port(address)
            ray.init(address=address, **quiet)
        else:
            _start({"num_cpus": cpus, "num_gpus": gpus, **quiet}, out)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        where = shown(address or "this machine")
        why = str(error).replace(address or where, where)
        raise ClusterError(f"Ray on {where} does not answer: {why}") from error
    main = threading.current_thread() is threading.main_thread()
    if main and ends is not None:  # Ray puts one of its own in this place, which ends in no order
        signal.signal(signal.SIGTERM, ends)
    try:
        if not address:  # else it is the workers' machines that count, and they look themselves
            device_for(ray.cluster_resources().get("GPU", 0.0))
        yield
    finally:
        ray.shutdown()
        if out is not None and not address:
            leftovers.forget(out)


def _start(facts: dict[str, Any], out: Path | None) -> None:
    """Start Ray on this machine, in the place of what a killed driver of the folder left."""
    if out is not None:
        leftovers.end_leftovers(out)
    before = leftovers.children()
    _init_local(facts)
    if out is not None:
        leftovers.note_started(out, before)


def _init_local(facts: dict[str, Any]) -> None:
    """Start Ray, once more if it does not come up; raises StartError after that."""
    check_open_files(facts["num_cpus"] or os.cpu_count() or 1)
    if sockets.too_long():
        facts = {**facts, "_temp_dir": str(sockets.short_folder())}

    def start() -> None:
        with _alone(), patient_start():
            ray.init(address="local", include_dashboard=False, **facts)

    def tell(error: Exception, pause: float) -> None:
        log.warning("Ray does not start (%s); trying once more", in_one_line(error))
        ray.shutdown()

    try:
        retried(start, [1.0], lambda error: not isinstance(error, ValueError), tell)
    except Exception as error:  # of a slow start Ray says so in a bare Exception
        ray.shutdown()
        raise StartError(f"Ray does not start on this machine: {in_one_line(error)}") from error


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """What Ray starts meanwhile is for this machine: its processes read `OWN_RAY_ENVIRONMENT`."""
    with on_loopback(), _set(OWN_RAY_ENVIRONMENT):
        yield


@contextlib.contextmanager
def _set(words: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the time of a call, where they are not set already."""
    new = {name: value for name, value in words.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


def run_on_ray(
    agenda: Agenda,
    options: Options,
    contents: Contents,
    profiles: Profiles,
    listener: Listener,
) -> None:
    """Do every job of the agenda on the cluster; returns when all have an outcome.

    Raises Moving after a notice, with everything saved.
    contents: what the datasets' files hold, so that workers name artifacts without reading them.
    profiles: what is known of trials on GPUs; it learns what is measured here.
    """
    version, home = versions()["raygrid"], str(Path.cwd())
    worker_config = WorkerConfig(options.for_workers(), contents, version, home)
    with connected(options.address, options.cpus, out=options.out.absolute()):
        agenda.divide(slots(ray.cluster_resources()), options.shards)
        find_broker = functools.partial(
            start_broker, worker_config.options.store_url, worker_config.version
        )
        broker = find_broker()

        def release(keys: list[str]) -> None:
            find_broker().release.remote(keys)  # another driver may have ended the one from before

        try:
            total = {**promised(), **ray.cluster_resources()}
            waiting = [job.trial for job in agenda.jobs.values() if job.trial is not None]
            if options.measure:
                profile_kinds(waiting, profiles, worker_config, listener.note)
            listener.ahead(agenda.jobs)
            sharing = Sharing(profiles, gpu_kind(total), options.per_gpu)
            works = [job.work for job in agenda.jobs.values()]
            for each in too_large(works, sharing.gpu, profiles):
                listener.note(str(each))
            agenda_callback = AgendaCallback(agenda, listener, sharing, release)
            os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(pending(total, options.address))
            callbacks = [
                Watchdog(agenda_callback, options.deadline),
                agenda_callback,
                Evacuation(),
                NodeWatch(),
            ]
            with unwrapped():
                _tuner(agenda, sharing, callbacks, worker_config).fit()
            if len(agenda):  # before `Evacuation` listens, Tune takes the notice and ends quietly
                raise Moving("the driver has to go")
        finally:
            with contextlib.suppress(Exception):
                ray.kill(broker)


@contextlib.contextmanager
def unwrapped() -> Iterator[None]:
    """Errors that a callback raises on purpose, such as of a full disk, without Tune's around."""
    try:
        yield
    except Exception as error:
        inner: BaseException | None = error
        while inner is not None and not isinstance(inner, RaygridError):
            inner = inner.__cause__ or inner.__context__
        if inner is None:
            raise
        raise inner from None


def _tuner(
    agenda: Agenda, sharing: Sharing, callbacks: list[tune.Callback], worker_config: WorkerConfig
) -> tune.Tuner:
    store = worker_config.options.store_url
    home = worker_config.options.out if "://" in store else Path(store).absolute().parent
    return tune.Tuner(
        tune.with_resources(functools.partial(run_job, worker_config=worker_config), request),
        tune_config=tune.TuneConfig(
            search_alg=ReadyFirst(agenda, sharing),
            scheduler=LongestFirst(agenda, sharing),
            num_samples=len(agenda),
            reuse_actors=True,
            trial_name_creator=lambda trial: str(trial.config["key"])[:12],
            trial_dirname_creator=lambda trial: str(trial.config["key"])[:24],
        ),
        run_config=tune.RunConfig(
            name=f"run-{uuid.uuid4().hex[:8]}",
            storage_path=str(home / "ray"),
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            callbacks=callbacks,
            verbose=0,
        ),
    )


def pending(total: dict[str, float], address: str | None) -> int:
    """How many trials may wait for a place: where a cluster may grow, what its autoscaler sees.

    On one machine twice what it can hold: the next job is known when a worker becomes free.
    """
    workers = int(total.get("CPU", 1)) + max(TRIALS_PER_GPU) * int(total.get("GPU", 0))
    return max(200, workers) if address else max(4, 2 * workers)
