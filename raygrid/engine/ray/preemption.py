"""Machines that are taken away with notice: who hears of it, and who acts on it.

A cloud says on the machine itself that a spot instance is being reclaimed. `python -m
raygrid.engine.ray.preemption [HOST:PORT]` runs beside Ray's worker, asks every few seconds, and has
Ray drain the node; on Kubernetes Ray does so itself. Jobs on a draining node save their state after
the epoch that they are in and go on elsewhere.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from urllib.error import URLError
from urllib.request import Request, urlopen

import ray

from raygrid.core.retry import retried, until
from raygrid.engine.ray.private import drain_node, draining_nodes

METADATA_SERVER = "http://169.254.169.254"  # of AWS and GCP alike, link-local
PREEMPTION_SECONDS = (
    110  # seconds that a machine has left; AWS gives two minutes, GCP thirty seconds
)


class Leaving:
    """Whether the node of this process drains. Asks Ray once a second at most."""

    def __init__(self) -> None:
        self._next = 0.0
        self._told = False

    def __call__(self) -> bool:
        now = time.monotonic()
        if now >= self._next and not self._told:
            self._next = now + 1.0
            with contextlib.suppress(Exception):  # a head that is busy is no notice
                node = ray.get_runtime_context().get_node_id()
                self._told = node in draining_nodes()
        return self._told


def reclaimed(base: str = METADATA_SERVER) -> bool:
    """Whether the cloud says that this machine will be taken away; False on any other machine."""
    return _aws(base) or _gcp(base)


def _aws(base: str) -> bool:
    lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    token = _ask(Request(f"{base}/latest/api/token", headers=lifetime, method="PUT"))
    if not token:
        return False
    header = {"X-aws-ec2-metadata-token": token}
    return bool(_ask(Request(f"{base}/latest/meta-data/spot/instance-action", headers=header)))


def _gcp(base: str) -> bool:
    path = f"{base}/computeMetadata/v1/instance/preempted"
    return _ask(Request(path, headers={"Metadata-Flavor": "Google"})) == "TRUE"


def _ask(request: Request) -> str:
    """The answer, empty if there is none."""
    try:
        with urlopen(request, timeout=2) as answer:
            text: str = answer.read(1000).decode(errors="replace").strip()
            return text
    except (URLError, OSError):
        return ""


def drain(address: str, node: str, seconds: int = PREEMPTION_SECONDS) -> None:
    """Tell Ray that a node will be gone in so many seconds. address: of the cluster, host:port."""
    drain_node(address, node, int((time.time() + seconds) * 1000))


def watch(address: str = "auto", asks: Callable[[], bool] = reclaimed, every: float = 5.0) -> int:
    """Wait for the notice and pass it on to the Ray at an address; ends with it.

    `auto` is the one Ray of this machine; where there are several it has to be named.
    """
    while not asks():
        time.sleep(every)

    def tell() -> None:
        ray.init(address=address, logging_level="ERROR", ignore_reinit_error=True)
        drain(ray.get_runtime_context().gcs_address, ray.get_runtime_context().get_node_id())

    retried(
        tell, until(PREEMPTION_SECONDS, 2.0), lambda error: True
    )  # a busy head may not answer at once
    return 0


if __name__ == "__main__":
    sys.exit(watch(sys.argv[1] if len(sys.argv) > 1 else "auto"))
