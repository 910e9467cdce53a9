"""What trials cost the driver, and which limit a cluster of 1,000 GPUs would meet first.

    python experiments/benchmarks/driver_cost.py [driver] [large]

driver: what a trial costs the driver, through Ray. large: planning and playing 100,000 trials, what
raygrid's own part of the driver is of them, and the limit.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from header import header
from simulation import HERE, IDLE, Diary, workplace

from raygrid.api.run_grid import run_grid
from raygrid.core.plugins import load_plugins
from raygrid.engine.costs.gpu_share import Sharing
from raygrid.engine.costs.profiles import Profiles
from raygrid.engine.costs.simulate import Fleet, play
from raygrid.engine.grid import Plan, plan
from raygrid.engine.ray.callbacks import AgendaCallback
from raygrid.engine.ray.queue import ReadyFirst
from raygrid.engine.schedule import Agenda, Job
from raygrid.storage.results import ResultLog
from raygrid.tracking.status import StatusFile
from raygrid.trials.result import Result

LARGE = "cifar10/{attack}/{defense}/{net}/supervised/dvae/{seed}"
ATTACKS = ("clean", "em", "rem", "lsp", "ops", "ar", "tap", "ntga", "hypo", "sep")
DEFENSES = ("standard", "grayscale", "jpeg", "cutout", "mixup")
NETS = ("resnet18", "resnet50", "vgg16", "densenet121", "mobilenetv2")


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
    parser.add_argument("parts", nargs="*", default=["driver", "large"])
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--gpus", type=int, default=1000)
    parser.add_argument("--cost", type=float, default=20.0, help="ms a trial, if not measured")
    args = parser.parse_args()
    print(header())
    load_plugins((str(HERE / "idle.py"),))
    cost = through_ray() if "driver" in args.parts else args.cost
    if "large" in args.parts:
        large(args.counts, args.gpus, cost)


if __name__ == "__main__":
    main()
