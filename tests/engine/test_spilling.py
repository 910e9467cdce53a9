"""Artifacts that the cluster's object store has no room for: slower, and the same bytes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEMORY = 80_000_000
"""Bytes of the object store; Ray takes no less."""
PROGRAM = """
import sys
import numpy as np, ray, torch
from raygrid.engine.ray.object_cache import BrokerClient, start_broker
from raygrid.storage.store import Bundle, Store

root, memory = sys.argv[1], int(sys.argv[2])
store = Store(root)
sizes = {"a": memory // 2, "b": memory // 2, "c": memory // 2, "large": memory + memory // 2}
for seed, (key, size) in enumerate(sizes.items()):
    drawn = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (size,), dtype=torch.uint8, generator=drawn)
    store.put("poison", key, Bundle({"pixels": pixels}, {"size": size}))
ray.init(num_cpus=1, object_store_memory=memory, include_dashboard=False, log_to_driver=False)
start_broker(root, "test")
client = BrokerClient(root, "test")
# All are held at once, as the trials of a busy node hold what they train on.
held = {key: client.fetch("poison", key) for key in (*sizes, *sizes)}
for key, size in sizes.items():
    arrays, facts = held[key]
    kept, _ = store.arrays("poison", key)
    assert facts == {"size": size}
    assert np.array_equal(arrays["pixels"], kept["pixels"]), key
print("shared", sum(sizes.values()), "of", int(ray.cluster_resources()["object_store_memory"]))
"""


@pytest.mark.cluster
@pytest.mark.timeout(500)
def test_poisons_larger_than_the_object_store_are_shared_whole(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path / "store"), str(MEMORY)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=450,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shared, there = (int(word) for word in done.stdout.split() if word.isdigit())
    assert there == MEMORY
    assert shared >= 3 * there
