"""What the tests of the engine share."""

from __future__ import annotations

from raygrid.engine.grid import plan
from raygrid.trials.trial import Trial


def trials_of(*specs: str) -> list[Trial]:
    return plan(specs, None).trials
