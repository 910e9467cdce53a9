"""How a run is doing, for whoever looks from outside: a small file that the driver keeps."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raygrid.core.errors import DataError
from raygrid.core.text import clock
from raygrid.engine.events import ArtifactState
from raygrid.engine.grid import Plan
from raygrid.tracking.counts import RunCounts
from raygrid.trials.artifacts import Artifact
from raygrid.trials.result import Result
from raygrid.trials.trial import Trial

STATUS_FILE = "status.json"
STATUS_SECONDS = 2.0  # seconds between two writings
ALIVE_SECONDS = 20.0  # seconds after which it is written even if nothing has happened
SILENT_SECONDS = 60.0  # seconds without a word after which a run counts as gone


class StatusFile(RunCounts):
    """Keeps `status.json` under `out` while a run lasts.

    Every event writes, at most one in `every` seconds. What happened in between is written by a
    thread a moment later, since the next event of a long poison may be an hour away; so is a sign
    of life. A file that cannot be written ends no run.
    """

    def __init__(
        self, out: Path, every: float = STATUS_SECONDS, now: Callable[[], float] = time.time
    ) -> None:
        super().__init__(now)
        self.path = out / STATUS_FILE
        self.every = every
        self.state = "running"
        self._wrote = 0.0
        self._unsaid = False
        self._counts = threading.RLock()  # the thread reads what events change
        self._over = threading.Event()
        self._writer: threading.Thread | None = None

    def started(self, plan: Plan, todo: Sequence[Trial]) -> None:
        super().started(plan, todo)
        self.write()
        self._over.clear()
        self._writer = threading.Thread(target=self._follow, name="status", daemon=True)
        self._writer.start()

    def artifact(self, artifact: Artifact, state: ArtifactState, facts: dict[str, Any]) -> None:
        with self._counts:
            super().artifact(artifact, state, facts)
            self.tick()

    def progress(self, artifact: Artifact, done: int, total: int, before: int) -> None:
        with self._counts:
            super().progress(artifact, done, total, before)
            self.tick()

    def retried(self, label: str, why: str) -> None:
        with self._counts:
            super().retried(label, why)
            self.tick()

    def trial_started(self, trial: Trial) -> None:
        with self._counts:
            super().trial_started(trial)
            self.tick()

    def placed(self, key: str, where: str) -> None:
        with self._counts:
            super().placed(key, where)
            self.tick()

    def epoch(self, trial: Trial, metrics: dict[str, float]) -> None:
        with self._counts:
            super().epoch(trial, metrics)
            self.tick()

    def trial_finished(self, trial: Trial, result: Result) -> None:
        with self._counts:
            super().trial_finished(trial, result)
            self.tick()

    def close(self, interrupted: bool) -> None:
        self._over.set()
        if self._writer is not None:
            self._writer.join()
        self.state = "interrupted" if interrupted else "finished"
        self.write()

    def tick(self) -> None:
        """Write if the last time is long enough ago; else the thread does so before long."""
        self._unsaid = True
        if self.now() - self._wrote >= self.every:
            self.write()

    def _follow(self) -> None:
        """Write what events have left unsaid, and that the run is alive, until it is over."""
        while not self._over.wait(self.every or STATUS_SECONDS):
            with self._counts:
                if self._unsaid or self.now() - self._wrote >= ALIVE_SECONDS:
                    self.write()

    def write(self) -> None:
        self._wrote, self._unsaid = self.now(), False
        new = self.path.with_suffix(".new")
        with contextlib.suppress(OSError):
            new.write_text(json.dumps(self.facts()), encoding="utf-8")
            new.replace(self.path)

    def facts(self) -> dict[str, Any]:
        """Everything the file says; times in seconds since 1970."""
        finished = self.already + self.done
        return {
            "state": self.state,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "written": self._wrote,
            "started": self.begun,
            "trials": self.total,
            "done": finished,
            "failed": self.failed,
            "diverged": self.diverged,
            "queued": max(0, self.total - finished - len(self.trials)),
            "artifacts": {"made": self.made, "reused": self.reused},
            "trials_per_hour": 3600 * self.done / max(self.elapsed, 1e-9),
            "seconds_left": self.left,
            "running": [asdict(job) for job in self.running],
        }


def read_status(out: Path, now: float | None = None) -> dict[str, Any]:
    """The last word of the run in `out`; `state` is `lost` if the driver has been silent.

    Raises DataError where no run has been.
    """
    try:
        found: dict[str, Any] = json.loads((out / STATUS_FILE).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        raise DataError(
            f"no run has left a {STATUS_FILE} in {out}; name its folder with --out"
        ) from None
    silence = (time.time() if now is None else now) - found["written"]
    if found["state"] == "running" and silence > SILENT_SECONDS:
        found["state"] = "lost"
    return found


def read_all(out: Path) -> dict[str, dict[str, Any]]:
    """The last word of every driver of a grid by its number; of one alone under no name.

    Raises DataError where no run has been.
    """
    shared = sorted((out / "drivers").glob(f"*/{STATUS_FILE}"))
    each = {file.parent.name: read_status(file.parent) for file in shared}
    # The one that gathers all rows writes after all others; if they go on, they write later.
    last = max((found["written"] for found in each.values()), default=0.0)
    if not each or ((out / STATUS_FILE).exists() and read_status(out)["written"] >= last):
        return {"": read_status(out)}
    return each


def status_text(found: Mapping[str, Any], price: float = 0.0, devices: int = 0) -> str:
    """The same for a person. price: of a device an hour, devices: how many are paid for."""
    elapsed = found["written"] - found["started"]
    made = found["artifacts"]
    going = found["state"] in ("running", "lost")
    word = "for" if going else "after"
    diverged = f"{found['diverged']} diverged, " if found.get("diverged") else ""
    lines = [
        f"{found['state']} on {found['host']} (process {found['pid']}) {word} {clock(elapsed)}",
        f"{found['done']} of {found['trials']} trials done, {found['failed']} failed, "
        f"{diverged}{found['queued']} queued; "
        f"artifacts {made['made']} made, {made['reused']} reused",
        f"{found['trials_per_hour']:.0f} trials an hour{_left(found)}",
    ]
    if price:
        cost = price * devices * elapsed / 3600
        lines.append(f"${cost:,.2f} so far: {devices} devices at ${price:,.2f} an hour each")
    running = found["running"] if going else []
    # Workers tell their place with their first report; a run in one process tells none.
    silent = "place not told yet" if any(job["where"] for job in running) else "here"
    places: dict[str, list[str]] = {}
    for job in running:
        places.setdefault(job["where"] or silent, []).append(_line(job, found["written"]))
    for place, jobs in sorted(places.items()):
        lines += [f"{place}:", *jobs]
    if found["state"] == "lost":
        lines.append(
            "no sign of life from the driver for a minute; run the same command again to resume"
        )
    return "\n".join(lines)


def _left(found: Mapping[str, Any]) -> str:
    left = found["seconds_left"]
    going = found["state"] == "running" and left is not None
    return f", {clock(left)} left" if going else ""


def _line(job: Mapping[str, Any], now: float) -> str:
    epoch = f"  epoch {job['epoch']}/{job['epochs']}" if job.get("epoch") else ""
    made = "" if job.get("share") is None else f"  {100 * job['share']:.0f} %"
    return f"  {job['what']}{epoch}{made}  {clock(now - job['since'])}"
