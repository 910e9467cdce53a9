"""The errors that raygrid raises on purpose: one sentence each, meant for a person."""

from __future__ import annotations

import difflib
import errno
import math
import re
from collections.abc import Iterable

from raygrid.core.secrets import without_secrets


class RaygridError(Exception):
    """Base of all errors whose message alone tells the user what to do.

    Secrets of addresses are hidden in the message, whoever wrote it.
    """

    def __str__(self) -> str:
        return without_secrets(super().__str__())


class SpecError(RaygridError, ValueError):
    """A name, parameter or combination that cannot be run."""


class PluginError(RaygridError):
    """An installed package that offers methods and cannot be imported.

    No SpecError: who takes a name that is not there in stride must not take this in stride.
    """


class SpecErrors(SpecError):
    """Several faults of one spec."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(self.faults))

    def __reduce__(self) -> tuple[type[SpecErrors], tuple[tuple[str, ...]]]:
        return (SpecErrors, (self.faults,))


class DataError(RaygridError):
    """A dataset that is missing, damaged or of the wrong shape."""


class MissingDataError(DataError):
    """A dataset of which nothing is there."""


class StoreError(RaygridError):
    """A store that cannot be read or written; `passing` if it may be a moment later."""

    def __init__(self, message: str, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


class ClaimedError(StoreError):
    """Trials that another driver has."""


LASTING_FAULTS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR)
"""Faults of files that waiting does not cure."""


def may_pass(error: Exception) -> bool:
    """Whether a fault may be gone later, as a full disk may."""
    return not isinstance(error, OSError) or error.errno not in LASTING_FAULTS


class TrackingError(RaygridError):
    """An MLflow server or database that does not answer."""


class DeviceError(RaygridError):
    """A GPU that is lost, or that has no room for what is asked of it."""


class ClusterError(RaygridError):
    """A Ray cluster that cannot be reached or does not fit."""


class StartError(ClusterError):
    """Ray that does not start on this machine; nothing has run."""


class Moving(BaseException):
    """This machine will be taken away: the work is kept and goes on elsewhere.

    No `Exception`, because it is no fault that becomes a row.
    """


class ClaimLost(BaseException):
    """Another driver has taken over the trials of this one, which stops.

    No `Exception`, because it is no fault of the trial that is interrupted.
    """


class DivergedError(RaygridError):
    """Numbers stopped being finite; `epoch` is the first in which they did (counted from 1).

    what: whose numbers; measure, value: which of them, and what it was instead. words: all of that
    as a row keeps it, in place of the other parts.
    """

    def __init__(
        self,
        epoch: int | None = None,
        value: float = math.nan,
        what: str = "training",
        measure: str = "loss",
        words: str = "",
    ) -> None:
        when = "" if epoch is None else f" in epoch {epoch}"
        super().__init__(words or f"{what} diverged{when}: {measure} is {value}")
        self.parts = (epoch, value, what, measure, words)

    def of(self, whole: str) -> DivergedError:
        """The same, said to be part of something else."""
        epoch, value, what, measure, words = self.parts
        said = f"{whole}: {words}" if words else ""
        return DivergedError(epoch, value, f"{whole}: {what}", measure, said)

    def at(self, epoch: int) -> DivergedError:
        """The same, in this epoch."""
        return DivergedError(epoch, *self.parts[1:])

    def __reduce__(self) -> tuple[type[DivergedError], tuple[int | None, float, str, str, str]]:
        return (DivergedError, self.parts)


def told(error: BaseException) -> str:
    """Kind and words of an error, also of a lack of memory, of which Python says nothing."""
    words = str(error)
    if isinstance(error, MemoryError) and not words:
        words = "there is no more memory for this process"
    return f"{type(error).__name__}: {words}"


def in_one_line(error: Exception) -> str:
    """What an error says first, its type if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _by_number(name: str) -> list[tuple[int, str]]:
    """Sorts names, numbers in them by value: 3 before 10."""
    pieces = re.split(r"(\d+)", name)
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in pieces]


def _spelled(name: str) -> str:
    """A name without what people write in different ways."""
    return re.sub(r"[-_ ]", "", name).lower()


def respelled(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `name` is but for case, hyphens and blanks; None if none is."""
    return next((other for other in sorted(known) if _spelled(other) == _spelled(name)), None)


def unknown(kind: str, given: object, known: Iterable[str]) -> str:
    """Say that what was given is no `kind`, which names are, and which of them is nearest."""
    name = str(given)
    names = sorted(known, key=_by_number)
    plain = {_spelled(other): other for other in names}  # resnet-18 and CIFAR10 are near, too
    near = [plain[n] for n in difflib.get_close_matches(_spelled(name), plain, n=5, cutoff=0.5)]
    near.sort(key=lambda other: sorted(other) != sorted(name))  # letters that changed places first
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {kind} {given!r}{hint}; known: {', '.join(names) or 'none'}"
