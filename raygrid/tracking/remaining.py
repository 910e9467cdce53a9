"""How long the rest of a run will take: its estimated work, and how fast that went so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from raygrid.engine.schedule import Job


@dataclass
class Remaining:
    """The work of a run's jobs in estimated seconds, of which only proportions count.

    jobs: the open ones by key, as the run keeps them: a job that leaves it without a word can
    never be done. since: when the first of them could start, in the seconds that `left` takes.
    """

    jobs: Mapping[str, Job]
    since: float
    done: float = 0.0
    _seconds: dict[str, float] = field(init=False)
    _before: dict[str, float] = field(default_factory=dict)
    _share: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._seconds = {key: job.seconds for key, job in self.jobs.items()}

    def reached(self, key: str, done: int, total: int, before: int) -> None:
        """A job has done so many units of itself; before: what was done when it began here."""
        # What an earlier run has done would make this one look fast.
        self._before.setdefault(key, before / total)
        self._share[key] = done / total

    def finished(self, key: str, worked: bool) -> None:
        """A job is over; worked: by having been done here."""
        seconds = self._seconds.pop(key, 0.0)
        before = self._before.pop(key, 0.0)
        self._share.pop(key, None)
        if worked:
            self.done += seconds * (1 - before)

    def left(self, now: float) -> float | None:
        """Seconds from `now` on; None while nothing is done to go by."""
        done, rest = self.done, 0.0
        # Copies, and keys that may be gone: a display asks while events change all of it.
        for key, seconds in list(self._seconds.items()):
            if key in self.jobs:
                share = self._share.get(key, 0.0)
                done += seconds * max(0.0, share - self._before.get(key, share))
                rest += seconds * (1 - share)
        return (now - self.since) * rest / done if done > 0 else None
