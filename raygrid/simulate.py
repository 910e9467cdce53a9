"""A run that does not happen: how long a grid takes on a fleet, by playing its schedule."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from raygrid.errors import SpecError
from raygrid.estimate import CPU, GPU, Speed
from raygrid.packing import BASE, Card, Sharing, card
from raygrid.profiles import Profiles
from raygrid.schedule import Agenda, Job

WORKER_START = 8.0  # seconds until a new worker process has imported everything


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
        if price < 0:
            raise SpecError(f"price is {price}, allowed from 0")
        count, name = int(found[1]), found[2]
        if name.upper() == "CPU":
            return cls(cpus=count, name="CPU", price=price)
        card(name)
        return cls(gpus=count, name=name, price=price)

    @property
    def card(self) -> Card | None:
        return card(self.name) if self.gpus else None

    @property
    def slots(self) -> int:
        return self.gpus or self.cpus

    @property
    def speed(self) -> Speed:
        """How fast one of its devices is."""
        if self.card is None:
            return CPU
        gain = self.card.bandwidth / card(BASE).bandwidth
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
    seconds: Callable[[Job], float] | None = None,
    start: float = WORKER_START,
) -> Timeline:
    """Run an agenda's schedule against a clock; empties the agenda.

    seconds: how long a job takes, default the agenda's own estimates. start: of a worker process,
    paid once by every worker. Each job goes to the device with the least free room that is enough,
    the highest rank first; jobs that do not fit wait and let smaller ones pass.
    """
    sharing = Sharing(profiles or Profiles(), fleet.name if fleet.gpus else "", fleet.per_gpu)
    free = [1.0] * fleet.slots
    warm = [0] * fleet.slots
    ends: list[tuple[float, int, str, int, float]] = []
    waiting: list[Job] = []
    now, order = 0.0, 0
    out = Timeline(slots=fleet.slots, price=fleet.price)
    used = [0] * fleet.slots
    while len(agenda):
        while (job := agenda.take()) is not None:
            waiting.append(job)
        waiting.sort(key=lambda job: -job.rank)
        rest = []
        for job in waiting:
            share = sharing.share(job.work) if fleet.gpus else 1.0  # without GPUs a core each
            place = _place(free, share)
            if place is None:
                rest.append(job)
                continue
            free[place] -= share
            used[place] += 1
            cold = used[place] > warm[place]
            warm[place] = max(warm[place], used[place])
            length = (seconds or _estimated)(job) + start * cold
            if job.trial is not None:
                out.packed[share] = out.packed.get(share, 0) + 1
            out.work += share * length
            heapq.heappush(ends, (now + length, order, job.key, place, share))
            order += 1
        waiting = rest
        now, _, key, place, share = heapq.heappop(ends)
        free[place] += share
        used[place] -= 1
        agenda.finish(key)
    out.makespan = max([now, *(end for end, *_ in ends)])
    return out


def _estimated(job: Job) -> float:
    return job.seconds


def _place(free: list[float], share: float) -> int | None:
    """The fullest device that still has room."""
    fits = [(room, index) for index, room in enumerate(free) if room >= share - 1e-9]
    return min(fits)[1] if fits else None
