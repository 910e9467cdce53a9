"""The errors that raygrid raises on purpose: one sentence each, meant for a person."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RaygridError(Exception):
    """Base of all errors whose message alone tells the user what to do."""


class SpecError(RaygridError, ValueError):
    """A name, parameter or combination that cannot be run."""


class SpecErrors(SpecError):
    """Several faults of one spec."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(self.faults))


class DataError(RaygridError):
    """A dataset that is missing, damaged or of the wrong shape."""


class StoreError(RaygridError):
    """A store that cannot be read or written; `passing` if it may be a moment later."""

    def __init__(self, message: str, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


class TrackingError(RaygridError):
    """An MLflow server or database that does not answer."""


class ClusterError(RaygridError):
    """A Ray cluster that cannot be reached or does not fit."""


class Moving(BaseException):
    """This machine will be taken away: the work is kept and goes on elsewhere.

    No `Exception`, because it is no fault that becomes a row.
    """


class DivergedError(RaygridError):
    """Training left the finite numbers; `epoch` is the first epoch that did (counted from 1)."""

    def __init__(self, epoch: int, loss: float) -> None:
        super().__init__(f"training diverged in epoch {epoch}: loss is {loss}")
        self.epoch = epoch
        self.loss = loss

    def __reduce__(self) -> tuple[type[DivergedError], tuple[int, float]]:
        return (DivergedError, (self.epoch, self.loss))


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that `name` is no `kind`, which names are, and which of them is nearest."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {kind} {name!r}{hint}; known: {', '.join(names) or 'none'}"
