"""How a run is doing, for whoever looks from outside: a small file that the driver keeps."""

from __future__ import annotations

import contextlib
import json
import os
import socket
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

FILE = "status.json"
EVERY = 2.0  # seconds between two writings
SILENT = 60.0  # seconds without a word after which a run counts as gone


class StatusFile(RunCounts):
    """Keeps `status.json` under `out` while a run lasts.

    Every event writes, at most one in `every` seconds; a file that cannot be written ends no run.
    """

    def __init__(
        self, out: Path, every: float = EVERY, now: Callable[[], float] = time.time
    ) -> None:
        super().__init__(now)
        self.path = out / FILE
        self.every = every
        self.state = "running"
        self._wrote = 0.0

    def started(self, plan: Plan, todo: Sequence[Trial]) -> None:
        super().started(plan, todo)
        self.write()

    def artifact(self, artifact: Artifact, state: ArtifactState, facts: dict[str, Any]) -> None:
        super().artifact(artifact, state, facts)
        self.tick()

    def trial_started(self, trial: Trial) -> None:
        super().trial_started(trial)
        self.tick()

    def epoch(self, trial: Trial, metrics: dict[str, float]) -> None:
        super().epoch(trial, metrics)
        self.tick()

    def trial_finished(self, trial: Trial, result: Result) -> None:
        super().trial_finished(trial, result)
        self.tick()

    def close(self, interrupted: bool) -> None:
        self.state = "interrupted" if interrupted else "finished"
        self.write()

    def tick(self) -> None:
        """Write if the last time is long enough ago."""
        if self.now() - self._wrote >= self.every:
            self.write()

    def write(self) -> None:
        self._wrote = self.now()
        new = self.path.with_suffix(".new")
        with contextlib.suppress(OSError):
            new.write_text(json.dumps(self.facts()))
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
        found: dict[str, Any] = json.loads((out / FILE).read_text())
    except (OSError, json.JSONDecodeError):
        raise DataError(f"no run has left a {FILE} in {out}; name its folder with --out") from None
    silence = (time.time() if now is None else now) - found["written"]
    if found["state"] == "running" and silence > SILENT:
        found["state"] = "lost"
    return found


def read_all(out: Path) -> dict[str, dict[str, Any]]:
    """The last word of every driver of a grid by its number; of one alone under no name.

    Raises DataError where no run has been.
    """
    shared = sorted((out / "drivers").glob(f"*/{FILE}"))
    if not shared or (out / FILE).exists():  # written by the one that gathered all rows
        return {"": read_status(out)}
    return {file.parent.name: read_status(file.parent) for file in shared}


def status_text(found: Mapping[str, Any], price: float = 0.0, devices: int = 0) -> str:
    """The same for a person. price: of a device an hour, devices: how many are paid for."""
    elapsed = found["written"] - found["started"]
    made = found["artifacts"]
    going = found["state"] in ("running", "lost")
    word = "for" if going else "after"
    lines = [
        f"{found['state']} on {found['host']} (process {found['pid']}) {word} {clock(elapsed)}",
        f"{found['done']} of {found['trials']} trials done, {found['failed']} failed, "
        f"{found['queued']} queued; artifacts {made['made']} made, {made['reused']} reused",
        f"{found['trials_per_hour']:.0f} trials an hour{_left(found)}",
    ]
    if price:
        cost = price * devices * elapsed / 3600
        lines.append(f"${cost:,.2f} so far: {devices} devices at ${price:,.2f} an hour each")
    places: dict[str, list[str]] = {}
    for job in found["running"] if going else ():
        places.setdefault(job["where"] or "here", []).append(_line(job, found["written"]))
    for place, jobs in sorted(places.items()):
        lines += [f"{place}:", *jobs]
    if found["state"] == "lost":
        lines.append("the driver has been silent; the same command goes on where it was")
    return "\n".join(lines)


def _left(found: Mapping[str, Any]) -> str:
    left = found["seconds_left"]
    going = found["state"] == "running" and left is not None
    return f", {clock(left)} left" if going else ""


def _line(job: Mapping[str, Any], now: float) -> str:
    epoch = f"  epoch {job['epoch']}/{job['epochs']}" if job.get("epoch") else ""
    return f"  {job['what']}{epoch}  {clock(now - job['since'])}"
