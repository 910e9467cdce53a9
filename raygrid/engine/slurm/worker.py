"""What runs on the other nodes of a job: checks that the node fits, then Ray until the job ends.

`srun` starts it once on each of them. It tells the first node what it finds on lines of its output,
which need no shared folder: whether the folders of the run are the same here, whether the versions
are, and that Ray is up.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raygrid.core.errors import ClusterError
from raygrid.engine.slurm.allocation import Allocation
from raygrid.engine.slurm.node import RayNode
from raygrid.engine.slurm.processes import adopt_orphans, end_on_sigterm

NODE_MARK = "raygrid-node:"
"""What lines for the first node begin with."""


def versions_here() -> dict[str, str]:
    """What has to be the same on all nodes of a job: Ray takes no other, keys hang on the rest."""
    found = {"Python": platform.python_version()}
    for name in ("ray", "raygrid"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # raygrid may run from a checkout, which all nodes share
    return found


def fault_here(
    versions: Mapping[str, str], probes: Sequence[Path], patience: float = 5.0
) -> str | None:
    """Why this node cannot take part; None if it can.

    versions: of the first node. probes: files that it has just written into the run's folders;
    patience: seconds in which a network file system shows them here.
    """
    here = versions_here()
    for name, version in versions.items():
        if here.get(name) != version:
            return f"has {name} {here.get(name, 'not at all')}, the first node {version}"
    for probe in probes:
        if not _appears(probe, patience):
            return (
                f"does not see {probe.parent} of the first node; give folders of a file system "
                "that all nodes share"
            )
    return None


def _appears(path: Path, seconds: float) -> bool:
    """Whether a file is there within so many seconds."""
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def tell_head(**facts: Any) -> None:
    """Say something to the first node."""
    print(f"{NODE_MARK}{json.dumps(facts)}", flush=True)


def serve_node(address: str, versions: Mapping[str, str], probes: Sequence[Path]) -> int:
    """Join Ray at an address until it ends, or the input does; 1 if this node does not fit."""
    allocation = Allocation.of(os.environ)
    fault = fault_here(versions, probes)
    node = RayNode(allocation, address)
    try:
        if fault is None:
            node.start()
            tell_head(node=allocation.node, state="up")
            over = threading.Event()
            threading.Thread(target=_wait_for_end, args=(over,), daemon=True).start()
            while node.running and not over.is_set():
                over.wait(0.5)
    except ClusterError as error:
        fault = f"cannot take part: {error}"
    finally:
        node.stop()
    if fault is not None:
        tell_head(node=allocation.node, state="fault", why=fault)
    return 1 if fault is not None else 0


def _wait_for_end(over: threading.Event) -> None:
    """The first node closes this process's input when the job is over."""
    sys.stdin.read()
    over.set()


def node_main(argv: Sequence[str] | None = None) -> int:
    """Read what the first node says of itself, and serve it."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--address", required=True)
    parser.add_argument("--versions", type=json.loads, required=True)
    parser.add_argument("--probe", type=Path, action="append", default=[])
    args = parser.parse_args(argv)
    end_on_sigterm()
    adopt_orphans()
    return serve_node(args.address, args.versions, args.probe)


if __name__ == "__main__":
    sys.exit(node_main())
