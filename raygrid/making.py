"""Making artifacts: loaded if they exist, made under a lock if not, with checkpoints on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from raygrid.artifacts import Artifact, Bench
from raygrid.store import Bundle, Partial, Store

Tell = Callable[[int, int], None]


class StoreProgress:
    """Progress of a generation: told to a listener, checkpointed in the store.

    Checkpoints closer together than `every` seconds are left out.
    """

    def __init__(
        self, store: Store, key: str, tell: Tell = lambda done, total: None, every: float = 20.0
    ) -> None:
        self.partial = Partial(store, key)
        self.tell = tell
        self.every = every
        self._last = time.monotonic()

    def report(self, done: int, total: int, **facts: float) -> None:
        self.tell(done, total)

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        if time.monotonic() - self._last < self.every:
            return
        self._last = time.monotonic()
        self.partial.save(Bundle({k: t.cpu() for k, t in tensors.items()}, dict(facts)))

    def load(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]] | None:
        found = self.partial.load()
        return None if found is None else (found.tensors, found.facts)


def realize(
    artifact: Artifact,
    store: Store,
    bench: Bench,
    fetch: Callable[[Artifact], Bundle],
    tell: Tell = lambda done, total: None,
) -> tuple[Bundle, bool]:
    """Load an artifact or make it from what `fetch` gives for its needs.

    Returns the content and whether it was made now. Only one process of a machine makes a key;
    the others wait and load.
    """
    found = store.get(artifact.kind, artifact.key)
    if found is not None:
        return found, False
    with store.lock(artifact.key):
        found = store.get(artifact.kind, artifact.key)
        if found is not None:
            return found, False
        progress = StoreProgress(store, artifact.key, tell)
        started = time.perf_counter()
        inputs = [fetch(need) for need in artifact.needs()]
        made = artifact.make(inputs, replace(bench, progress=progress))
        facts = {"label": artifact.label, "seconds": time.perf_counter() - started, **made.facts}
        made = Bundle(made.tensors, facts)
        store.put(artifact.kind, artifact.key, made)
        progress.partial.clear()
        for need in artifact.spent:
            store.drop(need.kind, need.key)
    return made, True
