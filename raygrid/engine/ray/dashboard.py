"""The way to the dashboard of a cluster, over which its Jobs API is asked.

Either its address is reached directly, or through an SSH tunnel that `ray dashboard` opens.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from raygrid.core.errors import ClusterError
from raygrid.core.retry import retried, until
from raygrid.core.secrets import shown
from raygrid.engine.ports import free_port


class Way:
    """The way to a dashboard that is reached directly.

    config: the cluster file that tells of it, None where an address is all that is known.
    """

    def __init__(self, address: str, config: Path | None = None) -> None:
        self.address = address
        self.config = config

    def renew(self) -> None:
        """Open it again if it has closed."""


class Tunnel(Way):
    """An SSH tunnel to the dashboard of a cluster file; it ends where its connection breaks."""

    def __init__(self, config: Path) -> None:
        port = free_port("127.0.0.1")
        super().__init__(f"http://127.0.0.1:{port}", config)
        command = [sys.executable, "-m", "ray.scripts.scripts", "dashboard", str(config)]
        self.command = [*command, "-p", str(port)]
        self.process = self._opened()

    def _opened(self) -> subprocess.Popen[bytes]:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(self.command, **quiet)  # type: ignore[call-overload]

    def renew(self) -> None:
        if self.process.poll() is not None:
            self.process = self._opened()

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@contextlib.contextmanager
def dashboard(address: str | None, config: Path | None) -> Iterator[Way]:
    """The way to a dashboard while the block lasts: its address, or that of a cluster file.

    Raises ClusterError if it stays silent.
    """
    if config is None:
        assert address is not None
        wait_for_answer(address, 10)
        yield Way(address)
        return
    tunnel = Tunnel(config)
    try:
        wait_for_answer(tunnel.address, 60)
        yield tunnel
    finally:
        tunnel.close()


def wait_for_answer(address: str, patience: float) -> None:
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
