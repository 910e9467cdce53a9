"""The simulated schedule against a real run.

    python experiments/benchmarks/simulation.py [real] [packed]

real: a small grid of sleeping trials with artifacts on local Ray, and the same jobs played with the
durations that were measured. packed: the same on GPUs that Ray only believes in, shared by trials
of two sizes.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from header import header

from raygrid.api.run_grid import Options, make_plan, run_grid
from raygrid.core.device import CONTEXT_MB
from raygrid.core.plugins import load_plugins
from raygrid.core.speed import CPU
from raygrid.engine.costs.gpu_share import BASE_CARD, MEMORY_MARGIN, card
from raygrid.engine.costs.profiles import Profiles, ProfileStore, kind
from raygrid.engine.costs.simulate import Fleet, play
from raygrid.engine.events import ArtifactState, Listener
from raygrid.engine.grid import plan
from raygrid.engine.ray.executor import connected
from raygrid.engine.ray.worker import LOGICAL_GPUS
from raygrid.engine.schedule import Agenda
from raygrid.storage.mirrored import open_store
from raygrid.trials.artifacts import Artifact
from raygrid.trials.result import Result
from raygrid.trials.trial import Trial

HERE = Path(__file__).parent
PACKED = "blank/clean/none/{net}/idle(seconds={seconds})/idle/{seed}"
IDLE = "blank/{attack}/none/small_cnn/idle(seconds={seconds})/idle/{seed}"


class Diary(Listener):
    """When jobs began, how long artifacts took, and the driver's CPU time at the end of each."""

    def __init__(self) -> None:
        self.begun: list[float] = []
        self.seconds: dict[str, float] = {}
        self.cpu = [time.process_time()]
        self.reports = 0

    def artifact(self, artifact: Artifact, state: ArtifactState, facts: dict[str, Any]) -> None:
        if state == "making":
            self.begun.append(time.time())
        elif state == "made":
            self.seconds[artifact.key] = facts["seconds"]

    def trial_started(self, trial: Trial) -> None:
        self.begun.append(time.time())

    def epoch(self, trial: Trial, metrics: dict[str, float]) -> None:
        self.reports += 1

    def trial_finished(self, trial: Trial, result: Result) -> None:
        self.seconds[trial.key] = result.seconds
        self.cpu.append(time.process_time())

    def per_trial(self) -> float:
        """The driver's milliseconds a trial, workers being there."""
        half = self.cpu[len(self.cpu) // 2 :]
        return 1000 * (half[-1] - half[0]) / (len(half) - 1)


@contextmanager
def workplace(cpus: int, gpus: int = 0) -> Iterator[Options]:
    """A local Ray and a folder."""
    os.environ.setdefault(LOGICAL_GPUS, "1")
    with tempfile.TemporaryDirectory() as folder, connected(cpus=cpus, gpus=gpus):
        yield Options(
            out=Path(folder) / "out",
            executor="ray",
            imports=(str(HERE / "idle.py"),),
            quiet=True,
            tracking="off",
        )


@dataclass
class Compared:
    """Seconds of a run and of its play. begins: when jobs began, from the call on."""

    ran: float
    played: float
    begins: list[float]
    packed: dict[float, int]

    @property
    def ratio(self) -> float:
        return self.played / self.ran


def compare(
    specs: list[str], options: Options, fleet: Fleet, profiles: Profiles, workers: int
) -> Compared:
    """Run specs on the Ray that is there, and play the same jobs with what was measured of them.

    What a worker costs before it begins is the mean over the first `workers` jobs.
    """
    ProfileStore(open_store(options.store_url)).save(profiles)
    diary, started = Diary(), time.time()
    outcome = run_grid(specs, options, diary)
    bad = [r for r in outcome.results if r.status != "done"]
    if bad:
        raise RuntimeError(f"{bad[0].spec}: {bad[0].error}")
    ran = max(r.finished for r in outcome.results) - started
    begins = [begun - started for begun in diary.begun]
    agenda = Agenda(
        make_plan(specs, options)[0].trials, lambda artifact: artifact.key not in diary.seconds, CPU
    )
    start = sum(begins[:workers]) / len(begins[:workers])
    line = play(agenda, fleet, profiles, lambda job, share: diary.seconds[job.key], start)
    return Compared(ran, line.makespan, begins, line.packed)


def told(title: str, found: Compared) -> None:
    print(
        f"{title}: ran in {found.ran:.1f} s, the first worker began after {found.begins[0]:.1f} s"
    )
    print(f"  played: {found.played:.1f} s, {found.ratio:.3f} of the run; {found.packed}")


def real(trials: int = 24, cpus: int = 2) -> Compared:
    """Makespan of a run on CPUs and of its play."""
    draw = random.Random(0)
    lengths = [round(draw.uniform(0.5, 3.0), 2) for _ in range(trials)]
    specs = [IDLE.format(attack="lsp", seconds=s, seed=i % 4) for i, s in enumerate(lengths)]
    with workplace(cpus) as options:
        found = compare(specs, options, Fleet(cpus=cpus), Profiles(), cpus)
    told(f"{trials} trials of {min(lengths)} to {max(lengths)} s on {cpus} CPUs", found)
    return found


def packed(trials: int = 24, gpus: int = 2, longest: float = 8.0) -> Compared:
    """The same on pretend GPUs, which small trials share by four and large ones by two.

    The cards are resources of Ray; nothing computes on them, and how long trials take together is
    not part of it.
    """
    draw, profiles = random.Random(0), Profiles()
    lengths = [round(draw.uniform(longest / 2, longest), 2) for _ in range(trials)]
    nets = [("small_cnn", 4), ("small_resnet", 2)]
    kinds = [nets[draw.random() < 0.4] for _ in range(trials)]
    specs = [
        PACKED.format(net=net, seconds=seconds, seed=number)
        for number, (seconds, (net, _)) in enumerate(zip(lengths, kinds, strict=True))
    ]
    for trial, (_, count) in zip(plan(specs, None).trials, kinds, strict=True):
        room = 1024 * card(BASE_CARD).memory_gb / count - CONTEXT_MB
        profiles.merge(
            BASE_CARD, kind(trial), memory_mb=0.9 * room / MEMORY_MARGIN, together=float(count)
        )
    with workplace(8 * gpus, gpus) as options:
        fleet = Fleet(gpus=gpus, name=BASE_CARD)
        found = compare(specs, replace(options, measure=False), fleet, profiles, 3 * gpus)
    told(f"{trials} trials of {min(lengths)} to {max(lengths)} s on {gpus} pretend GPUs", found)
    return found


PARTS = {"real": real, "packed": packed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    args = parser.parse_args()
    print(header())
    load_plugins((str(HERE / "idle.py"),))
    for name, part in PARTS.items():
        if name in args.parts:
            part()


if __name__ == "__main__":
    main()
