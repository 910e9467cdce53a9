"""Asking a person before a grid that takes days is started on this machine."""

from __future__ import annotations

import os
import sys

from raygrid.cli.plan import PlanStatus, left, there
from raygrid.core.errors import SpecError
from raygrid.core.options import Options
from raygrid.core.text import DAY, about
from raygrid.engine.grid import Plan
from raygrid.storage.results import log_of
from raygrid.storage.store import Store


def ask_if_long(plan: Plan, store: Store, options: Options) -> None:
    """Ask on a terminal whether to start what takes over 24 hours here; SpecError for a no.

    Nobody is asked without a terminal, with `--yes`, or for a cluster, whose size changes.
    """
    if options.yes or options.address is not None or not _on_a_terminal():
        return
    seconds, places = _estimate(plan, PlanStatus(), options)
    if seconds <= DAY:
        return
    log = log_of(options.out)
    state = PlanStatus(True, {row["key"]: row for row in log.rows()}, there(plan, store))
    seconds, places = _estimate(plan, state, options)
    if seconds <= DAY:
        return
    print(f"this takes about {about(seconds)} on {places}; go on? [y/N] ", end="", file=sys.stderr)
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise SpecError("nothing was started; --yes starts it, `plan` shows what it comes to")


def _on_a_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _estimate(plan: Plan, state: PlanStatus, options: Options) -> tuple[float, str]:
    """Seconds of what is left of a plan on this machine, and what was reckoned with."""
    import torch

    hours = left(plan, state)
    inline = options.engine == "inline"
    if gpus := torch.cuda.device_count():
        used = 1 if inline else gpus
        return 3600 * hours["gpu_hours"] / used, f"{used} GPU{'s' * (used > 1)}"
    cores = 1 if inline else options.cpus or os.cpu_count() or 1
    return 3600 * hours["cpu_core_hours"] / cores, f"{cores} CPU core{'s' * (cores > 1)}"
