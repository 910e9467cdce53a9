"""Making what a question asks about: said beforehand where it takes long."""

from __future__ import annotations

import sys

from raygrid.core.speed import CPU, GPU, Speed
from raygrid.core.text import about
from raygrid.engine.worker import Worker
from raygrid.storage.store import Bundle, Store
from raygrid.trials.artifacts import Artifact

LONG_SECONDS = 30.0
"""Estimated seconds from which on a person is told."""


class TellingWorker(Worker):
    """A worker outside of a run, where no display shows what is made."""

    def tell_and_fetch(self, artifact: Artifact) -> Bundle:
        """The content of an artifact; a line on stderr if it has to be made for long first."""
        seconds = missing_seconds(artifact, self.store, GPU if self.device.type == "cuda" else CPU)
        if seconds >= LONG_SECONDS:
            said = f"{artifact.kind} {artifact.label} is not there and is made first"
            print(f"{said}, in about {about(seconds)} on this device", file=sys.stderr, flush=True)
        return self.fetch(artifact)


def missing_seconds(artifact: Artifact, store: Store, speed: Speed) -> float:
    """The estimate of making an artifact with all that it needs, as far as a store lacks them."""
    missing: dict[str, float] = {}
    open_ = [artifact]
    while open_:
        each = open_.pop()
        if each.key not in missing and not store.has(each.kind, each.key):
            missing[each.key] = 0.0 if each.instant else each.seconds(speed)
            open_.extend(each.needs())
    return sum(missing.values())
