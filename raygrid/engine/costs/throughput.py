"""How many trials of a kind a GPU trains at once with profit: their images a second, summed.

That a GPU is busy says little: NVML counts the time in which any kernel ran, which one small
network fills while most of the card idles. So 1, 2, 4 and 8 trials train side by side, each in a
process of its own as in a run, for as long as their sum still grows.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

from raygrid.core.device_errors import trouble
from raygrid.core.errors import DeviceError
from raygrid.engine.costs.gpu_share import GPU_SHARES, fitting

LEAST_GAIN = 1.1
"""Twice as many trials must bring so much more; each of them takes longer than before."""
SHARING_COUNTS = tuple(sorted(round(1 / share) for share in GPU_SHARES))
WARM_UP_SECONDS = (
    300.0  # seconds for a process to import everything, fill its memory and train a first epoch
)


class Trainee(Protocol):
    """A trial that trains on demand, beside others."""

    def begin(self, seconds: float) -> None:
        """Start training for that long; does not wait."""

    def rate(self) -> float:
        """Wait until it is over: images a second meanwhile."""

    def end(self) -> None:
        """Give everything back."""


def together(start: Callable[[], Trainee], most: int, seconds: float) -> dict[int, float]:
    """Images a second by number of trials: 1, 2, 4 ... until the gain is below `LEAST_GAIN`.

    start: one more trial, ready to train; raises DeviceError if it finds no room. most: as many as
    the memory holds.
    """
    rates: dict[int, float] = {}
    members: list[Trainee] = []
    try:
        for count in (n for n in SHARING_COUNTS if n <= max(most, 1)):
            while len(members) < count:
                members.append(start())
            for member in members:
                member.begin(seconds)
            rates[count] = sum([member.rate() for member in members])
            if profitable(rates) < count:
                break
    except DeviceError:
        if not rates:
            raise
    finally:
        for member in members:
            member.end()
    return rates


def profitable(rates: dict[int, float]) -> int:
    """The largest number at which the sum is a tenth above that of half as many."""
    best = 1
    for count in sorted(rates)[1:]:
        if rates[count] < LEAST_GAIN * rates[best]:
            break
        best = count
    return best


@dataclass
class Process:
    """A trainee in a process of its own. facts: what it takes of the device, see `Meter`."""

    pipe: Connection
    process: Any
    facts: dict[str, Any]
    patience: float = WARM_UP_SECONDS

    @classmethod
    def start(cls, make: Callable[[], Rehearsing]) -> Process:
        """make: called in the new process, so it must pickle. Raises DeviceError if it fails."""
        here, there = multiprocessing.Pipe()
        spawn = multiprocessing.get_context("spawn")
        process = spawn.Process(target=_serve, args=(there, make), daemon=True)
        process.start()
        there.close()
        found = cls(here, process, {})
        try:
            found.facts = found._hear(WARM_UP_SECONDS)
        except DeviceError:
            found.end()
            raise
        return found

    def begin(self, seconds: float) -> None:
        self.pipe.send(seconds)
        self.patience = WARM_UP_SECONDS + 10 * seconds

    def rate(self) -> float:
        return float(self._hear(self.patience)["rate"])

    def end(self) -> None:
        self.pipe.close()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def _hear(self, patience: float) -> dict[str, Any]:
        try:
            said: dict[str, Any] = self.pipe.recv() if self.pipe.poll(patience) else {}
        except (EOFError, OSError):
            said = {"error": "its process ended"}
        if "error" in said or not said:
            raise DeviceError(said.get("error", f"no answer in {patience:.0f} s"))
        return said


class Rehearsing(Protocol):
    """What trains in the process: see `measure.Rehearsal`."""

    def facts(self) -> dict[str, Any]: ...

    def train(self, seconds: float) -> float:
        """Images trained in about that time, whole epochs."""


def _serve(pipe: Connection, make: Callable[[], Rehearsing]) -> None:
    """Train whenever the other side says for how long; it ends when the other side does."""
    with _telling(pipe):
        trainee = make()
        pipe.send(trainee.facts())
        while True:
            seconds = pipe.recv()
            started = time.perf_counter()
            images = trainee.train(seconds)
            pipe.send({"rate": images / (time.perf_counter() - started)})


@contextlib.contextmanager
def _telling(pipe: Connection) -> Iterator[None]:
    """Send on what went wrong, in a line."""
    try:
        yield
    except (EOFError, OSError):
        return
    except Exception as error:
        why = "out of memory" if trouble(error) == "memory" else f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError):
            pipe.send({"error": why})


def measure(make: Callable[[], Rehearsing], seconds: float = 3.0) -> dict[str, Any]:
    """The facts of one trial alone, and how many at once are worth it; `Profiles.learn` takes them.

    Raises DeviceError if even one does not start.
    """
    first = Process.start(make)
    ready: list[Trainee] = [first]
    most = fitting(first.facts["memory_mb"], first.facts["total_mb"])
    rates = together(lambda: ready.pop() if ready else Process.start(make), most, seconds)
    return {**first.facts, "together": profitable(rates), "images_per_second": rates}
