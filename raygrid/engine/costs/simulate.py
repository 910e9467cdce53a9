"""A run that does not happen: how long a grid takes on a fleet, by playing its schedule."""

from __future__ import annotations

import functools
import heapq
import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from raygrid.core.errors import SpecError
from raygrid.core.registry import require
from raygrid.core.speed import CPU, GPU, Speed
from raygrid.engine.costs.estimate import crowded
from raygrid.engine.costs.gpu_share import BASE_CARD, Gpu, Sharing, card
from raygrid.engine.costs.profiles import Profiles
from raygrid.engine.schedule import Agenda, Job

WORKER_START_SECONDS = 8.0  # seconds until a new worker process has imported everything


def check_price(price: float) -> None:
    """Raise SpecError for what no device costs an hour."""
    require(0 <= price < math.inf, f"price is {price}, allowed are numbers from 0")


@dataclass(frozen=True)
class Fleet:
    """Machines of one kind: `gpus` cards, or `cpus` cores without any.

    price: of a GPU (or core) an hour, in whatever money; all are paid from start to end. per_gpu:
    so many trials share a GPU, by default as many as fit.
    """

    gpus: int = 0
    name: str = ""
    cpus: int = 0
    price: float = 0.0
    per_gpu: int | None = None

    @classmethod
    def parse(cls, text: str, price: float = 0.0) -> Fleet:
        """Read `8xA10G` or `16xCPU`; raises SpecError for anything else."""
        found = re.fullmatch(r"(\d+)x(\w+)", text.strip())
        if not found or int(found[1]) < 1:
            raise SpecError(f"{text!r} is no fleet: expected a count and a kind, as in 8xA10G")
        check_price(price)
        count, name = int(found[1]), found[2]
        if name.upper() == "CPU":
            return cls(cpus=count, name="CPU", price=price)
        card(name)
        return cls(gpus=count, name=name, price=price)

    @property
    def card(self) -> Gpu | None:
        return card(self.name) if self.gpus else None

    @property
    def slots(self) -> int:
        return self.gpus or self.cpus

    @property
    def speed(self) -> Speed:
        """How fast one of its devices is."""
        if self.card is None:
            return CPU
        gain = self.card.bandwidth / card(BASE_CARD).bandwidth
        return Speed(GPU.gflops * gain, GPU.per_image / gain, self.name)


@dataclass
class Timeline:
    """What a simulated run came to, in seconds from its start.

    busy: share of all device time in which something was placed. packed: trials by GPU share.
    """

    makespan: float = 0.0
    work: float = 0.0
    slots: int = 1
    price: float = 0.0
    packed: dict[float, int] = field(default_factory=dict)

    @property
    def busy(self) -> float:
        return self.work / (self.slots * self.makespan) if self.makespan else 0.0

    @property
    def cost(self) -> float:
        return self.slots * self.makespan / 3600 * self.price


def play(
    agenda: Agenda,
    fleet: Fleet,
    profiles: Profiles | None = None,
    seconds: Callable[[Job, float], float] | None = None,
    start: float = WORKER_START_SECONDS,
) -> Timeline:
    """Run an agenda's schedule against a clock; empties the agenda.

    seconds: how long a job takes on such a share of a device, default the agenda's own estimates,
    `crowded`. start: of a worker process, paid once by every worker. Each job goes to the device
    with the least free room that is enough, the highest rank first; jobs that do not fit wait and
    let smaller ones pass.
    """
    seconds = seconds or functools.partial(_estimated, agenda.speed)
    sharing = Sharing(profiles or Profiles(), fleet.name if fleet.gpus else "", fleet.per_gpu)
    rooms, waiting = Rooms(fleet.slots), Waiting()
    ends: list[tuple[float, int, str, int, float]] = []
    now, order = 0.0, 0
    out = Timeline(slots=fleet.slots, price=fleet.price)
    while len(agenda):
        while (job := agenda.take()) is not None:
            waiting.add(job, sharing.share(job.work) if fleet.gpus else 1.0)  # else a core each
        while (share := waiting.next(rooms.largest)) is not None:
            job = waiting.pop(share)
            place, cold = rooms.take(share)
            length = seconds(job, share) + start * cold
            if job.trial is not None:
                out.packed[share] = out.packed.get(share, 0) + 1
            out.work += share * length
            heapq.heappush(ends, (now + length, order, job.key, place, share))
            order += 1
        now, _, key, place, share = heapq.heappop(ends)
        rooms.give(place, share)
        agenda.finish(key)
    out.makespan = max([now, *(end for end, *_ in ends)])
    return out


class Waiting:
    """Jobs that are ready, the highest rank of each share first."""

    def __init__(self) -> None:
        self._jobs: dict[float, list[tuple[float, int, Job]]] = {}
        self._order = itertools.count()

    def add(self, job: Job, share: float) -> None:
        heapq.heappush(self._jobs.setdefault(share, []), (-job.rank, next(self._order), job))

    def next(self, room: float) -> float | None:
        """The share of the highest rank that fits into the room, None if nothing does."""
        tops = ((jobs[0][:2], share) for share, jobs in self._jobs.items() if jobs)
        return min(((top, s) for top, s in tops if s <= room), default=(None, None))[1]

    def pop(self, share: float) -> Job:
        return heapq.heappop(self._jobs[share])[2]


class Rooms:
    """What is free of each device, and how many workers it has had at a time.

    Shares are 1, 1/2, 1/4 and 1/8, so sums are exact and few rooms differ in size.
    """

    def __init__(self, devices: int) -> None:
        self._free = [1.0] * devices
        self._used = [0] * devices
        self._warm = [0] * devices
        self._by_size: dict[float, list[int]] = {1.0: list(range(devices))}

    @property
    def largest(self) -> float:
        """The most room on any device."""
        return max(size for size in list(self._by_size) if self._first(size) is not None)

    def _first(self, size: float) -> int | None:
        """The first device with just that room; entries that are out of date are dropped."""
        devices = self._by_size[size]
        while devices and self._free[devices[0]] != size:
            heapq.heappop(devices)
        return devices[0] if devices else None

    def take(self, share: float) -> tuple[int, bool]:
        """Use the fullest device that has room, the first of several; whether a worker is new."""
        sizes = sorted(size for size in self._by_size if size >= share)
        place = next(p for p in map(self._first, sizes) if p is not None)
        self._move(place, -share)
        self._used[place] += 1
        cold = self._used[place] > self._warm[place]
        self._warm[place] = max(self._warm[place], self._used[place])
        return place, cold

    def give(self, place: int, share: float) -> None:
        """A job has ended."""
        self._move(place, share)
        self._used[place] -= 1

    def _move(self, place: int, change: float) -> None:
        self._free[place] += change
        heapq.heappush(self._by_size.setdefault(self._free[place], []), place)


def _estimated(speed: Speed, job: Job, share: float) -> float:
    return crowded(job.work, job.seconds, speed, share)
