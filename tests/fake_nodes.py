"""Machines that a real autoscaler starts and ends, all of them processes of this one."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path
from typing import Any

import ray._private.parameter as parameter
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider

FOLDER = "FAKE_NODES_DIR"


class Provider(FakeMultiNodeProvider):  # type: ignore[misc]
    """Ray's own, but every node has a session folder of its own, as machines have.

    In a shared one the folder of a job would vanish with the first node that leaves.
    """

    def _create_node_with_resources_and_labels(self, *given: Any) -> None:
        folder = tempfile.mkdtemp(prefix="n", dir=Path(os.environ[FOLDER]))
        usual = parameter.RayParams
        parameter.RayParams = functools.partial(usual, temp_dir=folder)
        try:
            super()._create_node_with_resources_and_labels(*given)
        finally:
            parameter.RayParams = usual
