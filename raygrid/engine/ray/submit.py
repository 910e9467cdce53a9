"""Where a command runs: on this machine, on a given Ray cluster, or on that of cluster.yaml.

A cluster is reached through Ray's Jobs API, over an SSH tunnel that `ray dashboard` opens. The
job is the same command with the working tree; it goes on when this machine sleeps or hangs up.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import logging
import os
import shlex
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from raygrid.core.errors import ClusterError
from raygrid.core.retry import retried, until
from raygrid.core.secrets import shown
from raygrid.engine.ray.upload import what_to_send

INSIDE = "RAYGRID_INSIDE"
MARK = "raygrid-archive:"
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


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
    if env.get(INSIDE):
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


def head_of(config: Path) -> str | None:
    """The address of the live head of a cluster file, None if it is not up."""
    if not _worth_asking(config):
        return None
    done = _ray("get-head-ip", str(config))
    lines = done.stdout.strip().splitlines()
    return lines[-1] if done.returncode == 0 and lines else None


def _worth_asking(config: Path) -> bool:
    """Whether this account could have launched the cluster; a cloud asked in vain takes minutes."""
    import yaml

    try:
        kind = yaml.safe_load(config.read_text())["provider"]["type"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ClusterError(f"{config} is not a cluster file: {error!r}") from None
    return has_credentials(kind)


def has_credentials(kind: str) -> bool:
    """Whether there are credentials for a cloud here; True for what raygrid knows nothing of."""
    home = Path.home()
    signs = {
        "aws": ("AWS_ACCESS_KEY_ID" in os.environ or "AWS_PROFILE" in os.environ, home / ".aws"),
        "gcp": ("GOOGLE_APPLICATION_CREDENTIALS" in os.environ, home / ".config" / "gcloud"),
    }
    told, folder = signs.get(kind, (True, home))
    return told or folder.exists()


def _ray(*words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", *words],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"`ray {' '.join(words)}` did not answer in {timeout:.0f} s") from error


@contextlib.contextmanager
def dashboard(place: Place) -> Iterator[str]:
    """The address of the cluster's dashboard, reachable while the block lasts."""
    if place.kind == "jobs":
        assert place.address is not None
        _answers(place.address, 10)
        yield place.address
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "ray.scripts.scripts", "dashboard", str(place.config)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    tunnel = subprocess.Popen([*command, "-p", str(port)], **quiet)  # type: ignore[call-overload]
    try:
        address = f"http://127.0.0.1:{port}"
        _answers(address, 60)
        yield address
    finally:
        tunnel.terminate()
        tunnel.wait(10)


def _answers(address: str, patience: float) -> None:
    """Wait for a dashboard; raises ClusterError in one sentence if it stays silent."""
    _check(address)

    def answer() -> None:
        try:
            with urlopen(f"{address}/api/version", timeout=5):
                return
        except HTTPError as error:
            if error.code not in (401, 403):  # it wants a token, which the client sends
                raise

    try:
        retried(answer, until(patience, 0.5), lambda error: isinstance(error, OSError | ValueError))
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"no Ray dashboard answers at {shown(address)} ({error}); is the cluster up and the "
            "port open? Use --address local to run on this machine"
        ) from None


def _check(address: str) -> None:
    """Raise ClusterError unless an address is one of a server, without a user."""
    try:
        parts = urlsplit(address)
        sound = bool(parts.hostname and parts.port != 0)
    except ValueError:  # whose words may hold a piece of a password
        sound = False
    if not sound or "@" in address or any(map(str.isspace, address)):
        raise ClusterError(
            f"{shown(address)!r} is no address of a Ray dashboard, such as http://host:8265; a "
            "token belongs into RAY_AUTH_TOKEN"
        )


@dataclass
class ClusterJob:
    """A submitted command on a cluster."""

    client: Any
    id: str

    @classmethod
    def submit(cls, address: str, root: Path, argv: Sequence[str], name: str) -> ClusterJob:
        """Send the working tree and the command; a command that runs already is joined instead.

        What is sent is printed. Raises ClusterError for a tree that is too large.
        """
        client = connect_jobs(address)
        identity = hashlib.sha256(shlex.join(argv).encode()).hexdigest()[:8]
        turn = 0
        while (found := _status(client, f"raygrid-{name}-{identity}-{turn}")) in ENDED:
            turn += 1
        job = cls(client, f"raygrid-{name}-{identity}-{turn}")
        if found is None:
            upload = what_to_send(root)
            print(*upload.lines(), sep="\n", file=sys.stderr)
            client.submit_job(
                entrypoint=shlex.join(["python", *argv]),
                submission_id=job.id,
                runtime_env={
                    "working_dir": str(root),
                    "excludes": upload.excludes,
                    "env_vars": {INSIDE: "1", "PYTHONPATH": "."},
                },
                metadata={"raygrid": name},
            )
        return job

    def follow(self, folder: Path) -> int:
        """Print the job's log until it ends and unpack what it sends home; its exit status.

        A connection that breaks is opened again: a laptop may sleep in between.
        """
        seen, packed = 0, io.StringIO()
        while True:
            with contextlib.suppress(Exception):
                seen = asyncio.run(self._tail(seen, packed))
            status = None
            with contextlib.suppress(OSError):  # no connection: it is asked again
                status = _status(self.client, self.id)
            if status in ENDED:
                self._rest(seen, packed)
                unpack_home(packed.getvalue(), folder)
                return 0 if status == "SUCCEEDED" else 1
            time.sleep(1)

    async def _tail(self, seen: int, packed: io.StringIO) -> int:
        """Print what is new; returns how many characters of the log were seen."""
        position = 0
        async for piece in self.client.tail_job_logs(self.id):
            new = piece[max(0, seen - position) :]
            position += len(piece)
            if new:
                print_log(new, packed)
                seen = position
        return seen

    def _rest(self, seen: int, packed: io.StringIO) -> None:
        """What was written after the last look."""
        print_log(self.client.get_job_logs(self.id)[seen:], packed)


def connect_jobs(address: str) -> Any:
    """A Jobs client; raises ClusterError for a refused token or another version of Ray."""
    from ray.job_submission import JobSubmissionClient

    logging.getLogger("ray").setLevel(logging.ERROR)  # it lists every file that it leaves out
    try:
        return JobSubmissionClient(address)
    except (RuntimeError, ConnectionError) as error:
        where, reason = shown(address), str(error).splitlines()[0]
        raise ClusterError(f"the cluster at {where} refuses this client: {reason}") from error


def _status(client: Any, job: str) -> str | None:
    """The status of a job; None if there is none of that id."""
    try:
        return str(client.get_job_status(job).value)
    except RuntimeError as error:
        if "404" in str(error) or "does not exist" in str(error):
            return None
        raise ClusterError(f"the cluster does not tell about {job}: {error}") from error


def print_log(text: str, packed: io.StringIO) -> None:
    """Print log text; lines that carry the packed tables are kept instead."""
    for line in text.splitlines(keepends=True):
        if line.startswith(MARK):
            packed.write(line.removeprefix(MARK).strip())
        else:
            sys.stdout.write(line)
    sys.stdout.flush()


def send_home(out: Path) -> None:
    """Inside a job: print tables, figures and results, packed, for `follow` to unpack."""
    if not os.environ.get(INSIDE):
        return
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in ("tables", "figures", "results.jsonl"):
            if (out / name).exists():
                archive.add(out / name, name)
    text = base64.b64encode(buffer.getvalue()).decode()
    for start in range(0, len(text), 4000):
        print(f"{MARK}{text[start : start + 4000]}", flush=True)


def unpack_home(packed: str, folder: Path) -> None:
    """Unpack what `send_home` printed, refusing paths that leave the folder."""
    if not packed:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(packed)), mode="r:gz") as archive:
        archive.extractall(folder, filter="data")
