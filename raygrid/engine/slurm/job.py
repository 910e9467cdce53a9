"""What a Slurm job runs on its first node: Ray on all of its nodes, then the user's command.

`python -m raygrid.engine.slurm.job --notice 300 -- COMMAND` is the one command of the batch script.
Slurm's signal before the job's end (SIGUSR1) goes on to the command, which saves its state; then
the job is queued again. The command's exit status is the job's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raygrid.core.errors import ClusterError, RaygridError, SpecError
from raygrid.engine.notice import SAVED_EXIT_STATUS
from raygrid.engine.slurm.allocation import Allocation
from raygrid.engine.slurm.node import JOB_RAY_ENVIRONMENT, STOP_SECONDS, RayNode
from raygrid.engine.slurm.others import OtherNodes
from raygrid.engine.slurm.processes import adopt_orphans, end_on_sigterm
from raygrid.engine.slurm.script import NOTICE_SECONDS
from raygrid.engine.slurm.worker import versions_here
from raygrid.storage.bucket import folder_of

SAVING_SHARE, ENDING_SHARE = 0.6, 0.2
"""Parts of the notice: for the command to save its state, then for it to end when told to."""
CUT_SHORT_STATUSES = (
    *(-signal.SIGTERM, -signal.SIGKILL, 130),  # the last is raygrid's own when it is told to stop
    *(-signal.SIGUSR1, 128 + signal.SIGUSR1),  # it does not listen yet; so a shell says it of it
)
"""Statuses of a command that the notice ended, and not its work."""
MOST_REQUEUES = 2
"""How often a job that never got to its command is queued again; Slurm would do so for ever."""


def folders_of(command: Sequence[str], env: Mapping[str, str]) -> list[Path]:
    """The folders that a command's nodes have to share: its output's, and its store's if local."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--out", default="runs")
    parser.add_argument("--store", default=env.get("RAYGRID_STORE"))
    found, _ = parser.parse_known_args(list(command[1:]))
    places = [found.out, folder_of(found.store or "")]
    return [Path(place).absolute() for place in places if place]


@contextlib.contextmanager
def probes_in(folders: Sequence[Path]) -> Iterator[list[Path]]:
    """A new file in each folder while the block lasts; raises ClusterError if one is not writable.

    Other nodes that do not see them see other folders.
    """
    name = f".node-check-{uuid.uuid4().hex[:12]}"
    probes = [folder / name for folder in folders]
    try:
        for probe in probes:
            probe.parent.mkdir(parents=True, exist_ok=True)
            probe.touch()
        yield probes
    except OSError as error:
        raise ClusterError(f"cannot write to {error.filename}: {error.strerror}") from None
    finally:
        for probe in probes:
            with contextlib.suppress(OSError):
                probe.unlink()


@dataclass
class Command:
    """The user's command, told of the end of its time.

    notice: seconds between the signal and the end of the job.
    """

    words: Sequence[str]
    notice: float
    process: subprocess.Popen[bytes] | None = None
    told: float | None = field(default=None)

    def tell(self, signum: int, frame: Any) -> None:
        """Slurm's signal: pass it on. It may come before there is a command."""
        if self.told is None:
            self.told = time.monotonic()
            print(f"raygrid: this job ends in {self.notice:.0f} s; saving", file=sys.stderr)
            if self.process is not None:
                self.process.send_signal(signal.SIGUSR1)

    def run(self, env: Mapping[str, str]) -> int:
        """Run the command and return its exit status.

        That is `SAVED_EXIT_STATUS` if it was told to go and did not end by itself before."""
        if self.was_told:
            return SAVED_EXIT_STATUS
        try:
            self.process = subprocess.Popen(self.words, env=dict(env))
        except OSError as error:
            raise SpecError(f"{self.words[0]} cannot be run: {error.strerror}") from None
        if self.told is not None:  # meanwhile, when there was nobody to pass it on to
            self.process.send_signal(signal.SIGUSR1)
        try:
            while (status := self.process.poll()) is None:
                self._hurry(self.process)
                time.sleep(0.2)
        finally:
            if self.process.poll() is None:
                self.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(2 * STOP_SECONDS)
                self.process.kill()
        return SAVED_EXIT_STATUS if status in CUT_SHORT_STATUSES and self.was_told else status

    @property
    def was_told(self) -> bool:
        """Whether Slurm's signal has come."""
        return self.told is not None

    def _hurry(self, process: subprocess.Popen[bytes]) -> None:
        """A command that does not heed the notice is ended: what it has saved before is kept."""
        if self.told is None:
            return
        since = time.monotonic() - self.told
        if since > (SAVING_SHARE + ENDING_SHARE) * self.notice:
            process.kill()
        elif since > SAVING_SHARE * self.notice:
            process.terminate()


def environment(env: Mapping[str, str], address: str, allocation: Allocation) -> dict[str, str]:
    """What the command sees: the Ray of this job, whatever Ray it was submitted beside."""
    own = {**env, **JOB_RAY_ENVIRONMENT, "RAY_ADDRESS": address}
    return own if allocation.task is None else {**own, "RAYGRID_DRIVER": allocation.task}


def run_command(words: Sequence[str], notice: float) -> int:
    """Start Ray, run the command, end Ray; its exit status."""
    allocation = Allocation.of(os.environ)
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH", "RAY_TMPDIR"):  # of another Ray
        os.environ.pop(name, None)
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    command, head = Command(words, notice), RayNode(allocation)
    signal.signal(signal.SIGUSR1, command.tell)
    try:
        head.start()
        with probes_in(folders_of(words, os.environ)) as probes:
            others = OtherNodes(allocation, head.address, versions_here(), probes)
            try:
                others.start()
                status = command.run(environment(os.environ, head.address, allocation))
            finally:
                others.stop()
    finally:
        head.stop()
    if (
        status == SAVED_EXIT_STATUS
        and command.process is None
        and restarts(os.environ) >= MOST_REQUEUES
    ):
        raise ClusterError(
            f"this job was told of its end {MOST_REQUEUES + 1} times before Ray had started on its "
            "nodes; give it more --time"
        )
    return requeue(allocation) if status == SAVED_EXIT_STATUS else status


def restarts(env: Mapping[str, str]) -> int:
    """How often Slurm has queued this job again."""
    return int(env.get("SLURM_RESTART_COUNT", 0))


def requeue(allocation: Allocation) -> int:
    """Have Slurm queue this job again; the status with which to end where it does not."""
    done = subprocess.run(
        ["scontrol", "requeue", allocation.job], capture_output=True, text=True, check=False
    )
    if done.returncode:
        why = " ".join(done.stderr.split())
        print(
            f"raygrid: this job cannot be queued again ({why}); submit it once more, it goes on "
            "where it was",
            file=sys.stderr,
        )
        return SAVED_EXIT_STATUS
    print("raygrid: everything is saved; the job is queued again", file=sys.stderr, flush=True)
    signal.pause()  # Slurm ends this process when it takes the job back
    return SAVED_EXIT_STATUS


def job_main(argv: Sequence[str] | None = None) -> int:
    """Run the command of a job; one line for what a person has to know."""
    given = list(sys.argv[1:] if argv is None else argv)
    end = given.index("--") if "--" in given else len(given)
    words = given[end + 1 :]
    parser = argparse.ArgumentParser(
        description=__doc__, usage="%(prog)s [--notice S] -- COMMAND", allow_abbrev=False
    )
    parser.add_argument("--notice", type=float, default=NOTICE_SECONDS, metavar="SECONDS")
    args = parser.parse_args(given[:end])
    end_on_sigterm()
    adopt_orphans()
    try:
        if not words:
            raise SpecError("there is no command; write it behind --")
        return run_command(words, args.notice)
    except RaygridError as error:
        print(f"raygrid: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(job_main())
