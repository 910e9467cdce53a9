"""Making artifacts: loaded if they exist, made under a lock if not, with checkpoints on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from raygrid.core.errors import DivergedError, StoreError
from raygrid.core.retry import patiently
from raygrid.storage.checkpoints import Checkpointer, CheckpointSlot
from raygrid.storage.store import Bundle, Store
from raygrid.trials.artifacts import Artifact, BuildContext

if TYPE_CHECKING:
    from torch import Tensor

OnProgress = Callable[[int, int, int], None]
"""Units done, of how many, and how many were when it went on from a checkpoint."""


@dataclass(frozen=True)
class BuildObserver:
    """Who is told of progress, and who knows whether this machine will be taken away soon."""

    tell: OnProgress = lambda done, total, before: None
    leaving: Callable[[], bool] = lambda: False


class StoreProgress:
    """Progress of a generation: told to a listener, checkpointed in the store."""

    def __init__(
        self, store: Store, key: str, watch: BuildObserver = BuildObserver(), every: float = 20.0
    ) -> None:
        self.partial = CheckpointSlot(store, key)
        self.tell = watch.tell
        self.keeper = Checkpointer(self.partial, every, watch.leaving)
        self._resumed = False
        self._before: int | None = None

    def report(self, done: int, total: int, **facts: float) -> None:
        if self._before is None:
            self._before = done if self._resumed else 0
        self.tell(done, total, self._before)

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self.keeper.save(lambda: Bundle({k: t.cpu() for k, t in tensors.items()}, dict(facts)))

    def load(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]] | None:
        found = self.partial.load()
        self._resumed = self._resumed or found is not None
        return None if found is None else (found.tensors, found.facts)


def build(
    artifact: Artifact,
    store: Store,
    context: BuildContext,
    fetch: Callable[[Artifact], Bundle],
    watch: BuildObserver | None = None,
) -> tuple[Bundle, bool]:
    """Load an artifact or make it from what `fetch` gives for its needs.

    Returns the content and whether it was made now. Only one process of a machine makes a key;
    the others wait and load. A DivergedError of its making says whose it is.
    """
    found = _found(artifact, store)
    if found is not None:
        return found, False
    with store.lock(artifact.key):
        found = _found(artifact, store)
        if found is not None:
            return found, False
        progress = StoreProgress(store, artifact.key, watch or BuildObserver())
        started = time.perf_counter()
        inputs = [fetch(need) for need in artifact.needs()]
        try:
            made = artifact.make(inputs, replace(context, progress=progress))
        except DivergedError as error:
            raise error.of(artifact.label) from error
        facts = {"label": artifact.label, "seconds": time.perf_counter() - started, **made.facts}
        made = Bundle(made.tensors, facts)
        patiently(lambda: store.put(artifact.kind, artifact.key, made))
        _clear(artifact, store)
    return made, True


def _found(artifact: Artifact, store: Store) -> Bundle | None:
    """The content of an artifact that is there; one that could not be uploaded is sent now."""
    found = patiently(lambda: store.get(artifact.kind, artifact.key))
    if found is not None and patiently(lambda: store.send(artifact.kind, artifact.key)):
        _clear(artifact, store)
    return found


def _clear(artifact: Artifact, store: Store) -> None:
    """Remove what its making needed and nobody needs any more."""
    CheckpointSlot(store, artifact.key).clear()
    for need in artifact.spent:
        with suppress(StoreError):  # what is left over costs room, not the whole
            store.drop(need.kind, need.key)
