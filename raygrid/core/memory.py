"""The resident memory of this process, and its highest over the time of one job."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_MARK = Path("/proc/self/clear_refs")
_LOWER_THE_MARK = "5"  # Linux: VmHWM becomes what is resident now
_FIELD = re.compile(r"^(VmHWM|RssShmem):\s+(\d+) kB$", re.MULTILINE)


class PeakMemory:
    """The highest resident memory of this process since the object was made, in MB (2**20 bytes).

    Counted are the process's own pages, libraries and the files that it reads where they lie.
    Shared memory is not, such as that of Ray's object store: each process that looks at a set there
    would count it anew, and goes on counting it after its job.

    Linux alone lets a process lower its mark of the highest, of which it keeps one: of two objects
    the younger is right. The mark is of all pages together, so each span between two measurements
    counts as its mark less the shared pages at its end; it is too low by the shared pages that
    came after the highest moment of the same span, and no more than these. Elsewhere, and where
    lowering the mark is not permitted, it is the highest of the whole life of the process with all
    its pages.
    """

    def __init__(self) -> None:
        self._highest = 0.0
        self.since_start = _lower_mark()
        """Whether jobs before this one are left out."""

    def measure(self) -> float:
        """End a span here and begin another; the highest of all spans so far."""
        if not self.since_start:
            return lifetime_peak()
        self._highest = max(self._highest, _mark_without_shared())
        _lower_mark()
        return self._highest


def lifetime_peak() -> float:
    """The highest resident memory since the process began (or lowered its mark), in MB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _lower_mark() -> bool:
    """Begin a span; whether this system has a mark to read and lets it be lowered."""
    with contextlib.suppress(OSError):
        if "VmHWM" in _fields():
            _MARK.write_text(_LOWER_THE_MARK, encoding="utf-8")
            return True
    return False


def _mark_without_shared() -> float:
    fields = _fields()
    return (fields["VmHWM"] - fields.get("RssShmem", 0)) / 2**10


def _fields() -> dict[str, int]:
    """What the kernel says of this process's memory, in kB."""
    return {name: int(size) for name, size in _FIELD.findall(_STATUS.read_text(encoding="utf-8"))}
