"""The simulated schedule against a real run, and a cluster of 1,000 GPUs that nobody has here.

    python experiments/benchmarks/simulation.py [real] [packed] [driver] [large]

real: a small grid of sleeping trials with artifacts on local Ray, and the same jobs played with the
durations that were measured. packed: the same on GPUs that Ray only believes in, shared by trials
of two sizes. driver: what a trial costs the driver, through Ray and without it.
large: planning and playing 100,000 trials, and which limit 1,000 GPUs would meet first.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
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
from raygrid.engine.costs.gpu_share import BASE, ROOM, Sharing, card
from raygrid.engine.costs.profiles import Profiles, ProfileStore, kind
from raygrid.engine.costs.simulate import Fleet, play
from raygrid.engine.events import ArtifactState, Listener
from raygrid.engine.grid import Plan, plan
from raygrid.engine.ray.callbacks import AgendaCallback
from raygrid.engine.ray.executor import connected
from raygrid.engine.ray.queue import ReadyFirst
from raygrid.engine.ray.worker import LOGICAL_GPUS
from raygrid.engine.schedule import Agenda, Job
from raygrid.storage.mirrored import open_store
from raygrid.storage.results import ResultLog
from raygrid.tracking.status import StatusFile
from raygrid.trials.artifacts import Artifact
from raygrid.trials.result import Result
from raygrid.trials.trial import Trial

HERE = Path(__file__).parent
PACKED = "blank/clean/none/{net}/idle(seconds={seconds})/idle/{seed}"
IDLE = "blank/{attack}/none/small_cnn/idle(seconds={seconds})/idle/{seed}"
LARGE = "cifar10/{attack}/{defense}/{net}/supervised/dvae/{seed}"
ATTACKS = ("clean", "em", "rem", "lsp", "ops", "ar", "tap", "ntga", "hypo", "sep")
DEFENSES = ("standard", "grayscale", "jpeg", "cutout", "mixup")
NETS = ("resnet18", "resnet50", "vgg16", "densenet121", "mobilenetv2")


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
        room = 1024 * card(BASE).memory_gb / count - CONTEXT_MB
        profiles.merge(BASE, kind(trial), memory_mb=0.9 * room / ROOM, together=float(count))
    with workplace(8 * gpus, gpus) as options:
        fleet = Fleet(gpus=gpus, name=BASE)
        found = compare(specs, replace(options, measure=False), fleet, profiles, 3 * gpus)
    told(f"{trials} trials of {min(lengths)} to {max(lengths)} s on {gpus} pretend GPUs", found)
    return found


def through_ray(trials: int = 300, cpus: int = 2) -> float:
    """The driver's milliseconds a trial with all of Tune, trials that do nothing."""
    specs = [IDLE.format(attack="clean", seconds=0, seed=seed) for seed in range(trials)]
    with workplace(cpus) as options:
        diary = Diary()
        run_grid(specs, options, diary, StatusFile(options.out))
    per = diary.per_trial()
    print(f"  through Ray: {per:.1f} ms of driver a trial, over the later half of {trials}")
    return per


def without_ray(plan: Plan, folder: Path) -> tuple[float, float]:
    """CPU milliseconds a trial of raygrid's own part, in the first and in the last tenth.

    Without the row that is written to disk, whose time depends on the disk alone.
    """
    agenda = Agenda(plan.trials, lambda artifact: True)
    sharing = Sharing(Profiles(), "A10G")
    listener = StatusFile(folder)
    listener.started(plan, plan.trials)
    search = ReadyFirst(agenda, sharing)
    book = AgendaCallback(agenda, listener, sharing, lambda keys: None)
    spent: list[float] = []
    while len(agenda):
        begun = time.process_time()
        config = search.suggest("")
        spent.append(time.process_time() - begun)
        assert isinstance(config, dict)
        tune, row = Tune(config), row_of(book.open[config["key"]])
        begun = time.process_time()
        book.on_trial_start(0, [], tune)
        book.on_trial_result(0, [], tune, {"metrics": json.dumps({"epoch": 1.0}), "where": "a"})
        book.on_trial_result(0, [], tune, {"row": row})
        spent[-1] += time.process_time() - begun
    tenth = max(1, len(spent) // 10)
    return 1000 * sum(spent[:tenth]) / tenth, 1000 * sum(spent[-tenth:]) / tenth


@dataclass
class Tune:
    """As much of Tune's trial as raygrid looks at."""

    config: dict[str, Any]


def row_of(job: Job) -> str:
    """What a worker sends at the end of a trial of 60 epochs."""
    trial = job.trial
    assert trial is not None
    epoch = {"epoch": 1.0, "train_loss": 0.51, "train_acc": 0.91, "test_acc": 0.53, "lr": 0.1}
    result = Result(str(trial.spec), trial.key, history=[epoch] * 60, resolved=trial.resolved())
    return json.dumps(result.row())


def writing(plan: Plan, folder: Path, rows: int = 100) -> float:
    """Milliseconds by the clock that the driver waits for a row to be on disk."""
    agenda, log = Agenda(plan.trials[:rows], lambda artifact: True), ResultLog(folder / "rows")
    lines = [json.loads(row_of(job)) for job in agenda.jobs.values()]
    started = time.perf_counter()
    for line in lines:
        log.append(line)
    return 1000 * (time.perf_counter() - started) / len(lines)


def specs_of(count: int) -> list[str]:
    """So many trials of a large comparison."""
    cells = [(a, d, n) for a in ATTACKS for d in DEFENSES for n in NETS]
    rounds = range(-(-count // len(cells)))
    named = (
        LARGE.format(attack=a, defense=d, net=n, seed=seed) for seed in rounds for a, d, n in cells
    )
    return [spec for spec, _ in zip(named, range(count), strict=False)]


def memory() -> float:
    """The most that this process held, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def clocked(text: str, action: Any) -> Any:
    started = time.process_time()
    found = action()
    print(f"    {text}: {time.process_time() - started:.2f} s of CPU, {memory():.2f} GiB")
    return found


def large(counts: list[int], gpus: int, cost: float) -> None:
    """Plan and play; then the rate that the GPUs ask of the driver."""
    fleet = Fleet.parse(f"{gpus}xA10G")
    for count in counts:
        print(f"  {count} trials")
        found = clocked("planned", lambda count=count: plan(specs_of(count), None))
        trials = found.trials
        agenda = clocked("agenda", lambda trials=trials: Agenda(trials, lambda a: False))
        agenda = Agenda(trials, lambda a: False, fleet.speed)
        line = clocked("played", lambda agenda=agenda: play(agenda, fleet))
        with tempfile.TemporaryDirectory() as folder:
            first, last = without_ray(found, Path(folder))
            disk = writing(found, Path(folder))
        print(
            f"    raygrid's part of the driver: {first:.2f} ms of CPU a trial at first, {last:.2f} "
            f"last; {disk:.2f} ms by the clock for a row on disk"
        )
    rate = len(trials) / line.makespan
    print(f"  {gpus} GPUs take {line.makespan / 3600:.1f} h, {line.busy:.0%} in use")
    print(f"  {rate:.2f} trials a second keep the driver busy for {rate * cost / 10:.1f} %")
    together = sum(line.packed.values()) / sum(s * n for s, n in line.packed.items())
    print(
        f"  the first limit is the driver: {1000 / cost:.0f} trials a second, which {gpus} GPUs "
        f"with {together:.1f} trials each ask for when a trial lasts "
        f"{gpus * together * cost / 1000:.0f} s"
    )
    mean = line.work * together / len(trials)
    met = mean * 1000 / cost / together
    print(f"  these trials last {mean:.0f} s each, and meet it at {met:.0f} GPUs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("parts", nargs="*", default=["real", "packed", "driver", "large"])
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--gpus", type=int, default=1000)
    parser.add_argument("--cost", type=float, default=20.0, help="ms a trial, if not measured")
    args = parser.parse_args()
    print(header())
    load_plugins((str(HERE / "idle.py"),))
    if "real" in args.parts:
        real()
    if "packed" in args.parts:
        packed()
    cost = through_ray() if "driver" in args.parts else args.cost
    if "large" in args.parts:
        large(args.counts, args.gpus, cost)


if __name__ == "__main__":
    main()
