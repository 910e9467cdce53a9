"""Where a command runs: on this machine, on a given Ray cluster, or on that of cluster.yaml.

A cluster is reached through Ray's Jobs API (`dashboard.py` has the way there). The
job is the same command with the working tree; it goes on when this machine sleeps or hangs up.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal

from raygrid.core.errors import ClusterError, in_one_line
from raygrid.core.secrets import shown
from raygrid.engine.ray.dashboard import Way
from raygrid.engine.ray.head import head_of
from raygrid.engine.ray.homecoming import INSIDE_JOB, print_log, unpack_home
from raygrid.engine.ray.sign_in import AUTH_MODE, refusals_told, sign_in, token_is_sent
from raygrid.engine.ray.upload import what_to_send

ENDED_JOB_STATES = ("SUCCEEDED", "FAILED", "STOPPED")
FORGOTTEN_ANSWERS = 5
"""Answers in a row that there is no such job, after which the cluster is taken for another one.

After as many refusals the log of a job that ended is given up."""
INTERRUPTED = 130
"""The exit status of a command that Ctrl-C ended."""
DISPLAY_FLAGS = ("--quiet", "--json", "--yes")
"""Words of a command that do not change what its job does: with and without it is one job."""


@dataclass(frozen=True)
class Place:
    """Where to run.

    kind: `here` (start Ray on this machine), `direct` (join the cluster at `address`), `jobs`
    (submit to the dashboard at `address`), `tunnel` (the same, for the cluster of `config`).
    """

    kind: Literal["here", "direct", "jobs", "tunnel"]
    address: str | None = None
    config: Path | None = None


def decide(address: str | None, env: Mapping[str, str], folder: Path) -> Place:
    """Inside a job, a given address, a live cluster of cluster.yaml, else this machine."""
    if env.get(INSIDE_JOB):
        return Place("direct", "auto")
    address = address or env.get("RAY_ADDRESS")
    if address == "local":
        return Place("here")
    if address:
        return Place("jobs" if address.startswith("http") else "direct", address)
    config = folder / "cluster.yaml"
    if config.exists() and env.get("RAYGRID_CLUSTER", "") != "off" and head_of(config):
        return Place("tunnel", config=config)
    return Place("here")


@dataclass
class ClusterJob:
    """A submitted command on a cluster."""

    client: Any
    id: str
    way: Way = field(default_factory=lambda: Way(""))
    seen: int = 0

    @classmethod
    def submit(cls, way: Way, root: Path, argv: Sequence[str], name: str) -> ClusterJob:
        """Send the working tree and the command; a command that runs already is joined instead.

        What is sent is printed. Raises ClusterError for a tree that is too large, and for a
        program outside of it.
        """
        client = connect_jobs(way)
        words = words_there(argv, root)
        same = [word for word in words if word not in DISPLAY_FLAGS]
        identity = hashlib.sha256(shlex.join(same).encode()).hexdigest()[:8]
        turns = (cls(client, f"raygrid-{name}-{identity}-{turn}", way) for turn in count())
        job, status = next((j, s) for j in turns if (s := j.status()) not in ENDED_JOB_STATES)
        if status is None:
            upload = what_to_send(root)
            print(*upload.lines(), sep="\n", file=sys.stderr)
            client.submit_job(
                entrypoint=shlex.join(["python", *words]),
                submission_id=job.id,
                runtime_env={
                    "working_dir": str(root),
                    "excludes": upload.excludes,
                    "env_vars": {INSIDE_JOB: "1", "PYTHONPATH": "."},
                },
                metadata={"raygrid": name},
            )
        return job

    def follow(self, folder: Path) -> int:
        """Print the job's log until it ends and unpack what it sends home; its exit status.

        Ctrl-C leaves the job to itself: it is said that it goes on, how to join and how to end it.
        Raises ClusterError if the cluster no longer knows the job, or keeps its log to itself.
        """
        try:
            status, log = self._ended()
        except KeyboardInterrupt:
            print(self._goes_on(), file=sys.stderr)
            return INTERRUPTED
        print_log(log[self.seen :])  # what was written after the last look
        self.seen = len(log)
        unpack_home(log, folder)
        return 0 if status == "SUCCEEDED" else 1

    def _ended(self) -> tuple[str, str]:
        """Print the log until the job ends; how it did, and all of its log.

        A connection that breaks is opened again: a laptop may sleep in between.
        """
        unknown, refused, apart = 0, 0, False
        while True:
            with contextlib.suppress(Exception):
                asyncio.run(self._tail())
            try:
                status = self.status()
                log = self._log() if status in ENDED_JOB_STATES else ""
            except OSError as error:
                if not apart:
                    said = in_one_line(error)
                    print(f"no connection to the cluster ({said}); trying again", file=sys.stderr)
                apart = True
                self.way.renew()
                time.sleep(1)
                continue
            except RuntimeError as error:  # an answer, but not the log: its agent may start anew
                refused += 1
                if refused == FORGOTTEN_ANSWERS:
                    raise ClusterError(_without_log(self.id, error)) from error
                time.sleep(1)
                continue
            if status is not None and status in ENDED_JOB_STATES:
                return status, log
            unknown, apart = (unknown + 1 if status is None else 0), False
            if unknown == FORGOTTEN_ANSWERS:
                raise ClusterError(
                    f"the cluster does not know the job {self.id}: its head is another one now; "
                    "run the same command again, it goes on with what the store has"
                )
            time.sleep(1)

    def _goes_on(self) -> str:
        """What is said to who leaves; a tunnel's address is gone with it, so another is opened."""
        token = f"{AUTH_MODE}=token " if token_is_sent() else ""
        address, first = shown(self.way.address), ""
        if self.way.config is not None:
            address = "http://127.0.0.1:8265"
            first = f"`ray dashboard {self.way.config}` and, in another terminal, "
        return (
            f"the job {self.id} goes on at the cluster; the same command joins it again\n"
            f"to end it: {first}`{token}ray job stop {self.id} --address {address}`"
        )

    def status(self) -> str | None:
        """Ray's word for how the job is; None if there is none of its id.

        Raises ClusterError if the cluster does not tell.
        """
        try:
            with refusals_told(self.way.address):
                return str(self.client.get_job_status(self.id).value)
        except RuntimeError as error:
            if "404" in str(error) or "does not exist" in str(error):
                return None
            raise ClusterError(f"the cluster does not tell about {self.id}: {error}") from error

    def _log(self) -> str:
        with refusals_told(self.way.address):
            return str(self.client.get_job_logs(self.id))

    async def _tail(self) -> None:
        """Print what is new of the log; `seen` is how many of its characters were."""
        position = 0
        async for piece in self.client.tail_job_logs(self.id):
            new = piece[max(0, self.seen - position) :]
            position += len(piece)
            if new:
                print_log(new)
                self.seen = position


def words_there(argv: Sequence[str], root: Path) -> list[str]:
    """What follows `python` in the working tree on the cluster, where its program has its place.

    Raises ClusterError for a program outside of the tree.
    """
    program, rest = Path(argv[0]), [word for word in argv[1:] if word != "--detach"]
    if program.stem == "raygrid" or program.parts[-2:] == ("raygrid", "__main__.py"):
        return ["-m", "raygrid", *rest]
    try:
        return [str((root / program).resolve().relative_to(root.resolve())), *rest]
    except ValueError:
        raise ClusterError(
            f"{program} is outside of {root}, whose files alone are sent to the cluster"
        ) from None


def connect_jobs(way: Way) -> Any:
    """A Jobs client; raises ClusterError for a refused token or another version of Ray.

    It sends a token where the cluster's file asks for one, or the environment says so.
    """
    from ray.job_submission import JobSubmissionClient

    logging.getLogger("ray").setLevel(logging.ERROR)  # it lists every file that it leaves out
    if way.config is not None:
        sign_in(way.config)
    try:
        with refusals_told(way.address):
            return JobSubmissionClient(way.address)
    except (RuntimeError, ConnectionError) as error:
        where, reason = shown(way.address), in_one_line(error)
        raise ClusterError(f"the cluster at {where} refuses this client: {reason}") from error


def _without_log(job: str, error: RuntimeError) -> str:
    return (
        f"the job {job} ended, but the cluster does not give its log, in which its tables come "
        f"home ({in_one_line(error)}); run the same command again, it goes on with what the store "
        "has"
    )
