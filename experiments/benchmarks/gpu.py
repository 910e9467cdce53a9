"""All that a GPU is asked once one is at hand, in one command on a bare machine.

    python experiments/benchmarks/gpu.py --minutes 10 [--out gpu.jsonl] [--parts ends speed ...]

Needs torch; Ray is used where it is installed. Parts run in this order, each for its share of what
is left of the time, and write every result to `--out` as it is found, so that a machine that is
taken away has told what it knew:

ends       a trial of each learner and an attack of each family from data to row, in this process,
           and all of them on Ray with a whole GPU and with a quarter
speed      images/s of a training step: raygrid's loop, the same with recorded steps (and whether
           they train the same bytes), and a bare one that never waits
together   1, 2, 4, 8 trials at once, without and with MPS: the sum of images/s
fast       trials of the protocol `fast` for as long as time is left
attacks    seconds that a poison takes on the quick dataset, the cheapest first

The table at the end is Markdown. After an error that leaves the process without its GPU the parts
that are left go on in a fresh one. --device cpu tries it out, and so does a device that `--import`
brings along; `--small` has it ask little.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from book import Book, Lost, attempt, table

from raygrid.api.run_grid import run_grid
from raygrid.core.device import device_name, settle
from raygrid.core.options import Options
from raygrid.core.plugins import load_plugins
from raygrid.core.speed import CPU
from raygrid.engine.costs import throughput
from raygrid.engine.costs.measure import Rehearsal, task_on_noise
from raygrid.engine.grid import plan
from raygrid.engine.worker import best_device, commit, versions
from raygrid.nn.graphs import SWITCH
from raygrid.nn.steps import autocast
from raygrid.nn.trainer import Trainer

LEARNERS = ("supervised", "simclr", "byol", "moco", "simsiam", "supcl")
FAMILIES = ("lsp", "pgd", "em", "tap", "ar", "cp", "dc", "aue")
FEW = ("lsp", "pgd(steps=2, surrogate=small_cnn, surrogate_epochs=1)")
SPEC = "photo_digits/{}/{}/{}/{}/quick(epochs=2)/0"
LARGE = "cifar10/clean/{}/resnet18/supervised/tp/0"
DEFENSES = ("standard", "none", "cutmix", "at", "ueraser_lite")


def grid(book: Book, specs: list[str], **options: Any) -> dict[str, Any]:
    """Run trials to rows in a folder of their own."""
    with tempfile.TemporaryDirectory() as folder:
        given = {"executor": "inline", "quiet": True, "tracking": "off", **options}
        given["imports"] = book.imports
        outcome = run_grid(specs, Options(out=Path(folder), data=book.data, **given))
    if not outcome.results:
        raise RuntimeError("the plan skips it on this dataset")
    bad = [r for r in outcome.results if r.status != "done"]
    if bad:
        raise RuntimeError(f"{bad[0].spec}: {bad[0].error}")
    seconds = sum(r.seconds for r in outcome.results)
    last = outcome.results[-1]
    return {"trial_seconds": seconds, "accuracy": last.last_acc, "memory_mb": last.memory_mb}


def ends(book: Book) -> None:
    learners, families = (LEARNERS[:2], FEW) if book.small else (LEARNERS, FAMILIES)
    clean = {f"learner {n}": SPEC.format("clean", "standard", "small_cnn", n) for n in learners}
    specs = {f"attack {n}": SPEC.format(n, "standard", "small_cnn", "supervised") for n in families}
    specs = {**clean, **specs}
    for name, spec in specs.items():
        attempt(book, "ends", name, functools.partial(grid, book, [spec]))
    if importlib.util.find_spec("ray") is None:
        book.note("ends", "on Ray", state="Ray is not installed")
        return
    for per_gpu in (1, 4):
        work = functools.partial(on_ray, book, list(specs.values()), per_gpu)
        attempt(book, "ends", f"all on Ray, {per_gpu} to a GPU", work)


def on_ray(book: Book, specs: list[str], per_gpu: int) -> dict[str, Any]:
    """A grid on this machine's GPUs, as Ray finds them; another device counts as one."""
    from raygrid.engine.ray.executor import connected

    gpus = {"cuda": None, "cpu": 0}.get(book.device.type, 1)
    with connected(gpus=gpus):
        return grid(book, specs, executor="ray", per_gpu=per_gpu, measure=False)


def network_of(book: Book, defense: str) -> str:
    """ResNet-18 on noise of CIFAR-10's shape; a small network where little is asked."""
    return (
        SPEC.format("clean", defense, "small_cnn", "supervised")
        if book.small
        else (LARGE.format(defense))
    )


def speed(book: Book) -> None:
    for defense in DEFENSES[:2] if book.small else DEFENSES:
        spec = network_of(book, defense)
        for name, how in (("raygrid", "plain"), ("recorded steps", "recorded")):
            work = functools.partial(pace, book, spec, how)
            attempt(book, "speed", f"{name}, {defense}", work)
        attempt(book, "speed", f"equal bytes, {defense}", functools.partial(equal, book, spec))
    work = functools.partial(pace, book, network_of(book, "none"), "bare")
    attempt(book, "speed", "bare loop", work)


@contextlib.contextmanager
def recording(on: bool) -> Iterator[None]:
    """Steps are recorded meanwhile, or not."""
    SWITCH.on = on
    try:
        yield
    finally:
        SWITCH.on = False


def session_of(book: Book, spec: str, batches: int) -> Any:
    (trial,) = plan([spec], None).trials
    return trial.learner.start(task_on_noise(trial, 4 if book.small else batches, book.device))


def pace(book: Book, spec: str, how: str) -> dict[str, Any]:
    """Images a second over epochs of noise, after one that warms up.

    The epochs are about as long as CIFAR-10's: steps are recorded once in each.
    """
    session = session_of(book, spec, 390)
    trainer: Trainer = session.trainer
    work: Callable[[], Any] = functools.partial(session.epoch, 0)
    if how == "bare":
        work = functools.partial(naked, trainer)
    recorded = SWITCH.recorded
    with recording(how == "recorded"):
        work()
        finish(book.device)
        started, images = time.perf_counter(), 0
        while time.perf_counter() - started < (1.0 if book.small else 3.0):
            work()
            images += len(trainer.train)
        finish(book.device)
    seconds = time.perf_counter() - started
    return {"images_per_second": images / seconds, "recorded": SWITCH.recorded - recorded}


def equal(book: Book, spec: str) -> dict[str, Any]:
    """Whether recorded steps leave the very weights that single steps do, after two epochs."""
    states = []
    before = SWITCH.recorded
    for on in (False, True):
        session = session_of(book, spec, 40)
        with recording(on):
            for epoch in range(2):
                session.epoch(epoch)
        states.append(session.trainer.module.state_dict())
    there, here = states
    apart = [name for name, value in there.items() if not torch.equal(value, here[name])]
    recorded = SWITCH.recorded - before  # none: both sides took their steps one by one
    return {"equal": not apart, "apart": len(apart), "recorded": recorded}


def naked(trainer: Trainer) -> None:
    """What any loop has to do: batches in order, forward, backward, step; nothing is counted."""
    train, size = trainer.train, trainer.recipe.batch_size
    for start in range(0, len(train), size):
        rows = slice(start, start + size)
        with autocast(trainer.recipe.precision or "bf16", trainer.device):
            logits = trainer.module(train.floats(rows))
        loss = torch.nn.functional.cross_entropy(logits.float(), train.labels[rows])
        trainer.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        trainer.optimizer.step()


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rehearsal(spec: str, device: str, imports: tuple[str, ...]) -> Rehearsal:
    """A trial that trains on noise, in the process that calls."""
    load_plugins(imports)
    place = torch.device(device)
    settle(place)
    (trial,) = plan([spec], None).trials
    return Rehearsal(trial, place, batches=2 if place.type == "cpu" else 12)


def together(book: Book) -> None:
    spec = network_of(book, "standard")
    make = functools.partial(rehearsal, spec, str(book.device), book.imports)
    seconds = 0.5 if book.small else 4.0
    attempt(book, "together", "in turns", lambda: throughput.measure(make, seconds))
    if book.device.type == "cuda" and importlib.util.find_spec("ray"):
        from raygrid.engine.ray import mps

        found = mps.use_mps(0.5)
        work: Callable[[], dict[str, Any]] = lambda: throughput.measure(make, seconds)  # noqa: E731
        if found:
            attempt(book, "together", "with MPS", work)
            os.environ.pop(mps.PIPES_VARIABLE, None)
        else:
            book.note("together", "with MPS", state="no MPS here")


def fast(book: Book) -> None:
    name = "cifar10/clean/standard/airbench/supervised/fast/{}"
    if book.small:
        name = "photo_digits/clean/standard/small_cnn/supervised/quick(epochs=1)/{}"
    for seed in range(1 if book.small else 20):
        if book.left <= 0:
            return
        attempt(book, "fast", name.format(seed), functools.partial(grid, book, [name.format(seed)]))


def attacks(book: Book) -> None:
    from raygrid.attacks import ATTACKS

    names = [n for n in ATTACKS if ATTACKS[n].limit is not None and not ATTACKS[n].on_target]
    specs = {name: SPEC.format(name, "standard", "small_cnn", "supervised") for name in names}
    plans = {name: plan([spec], None) for name, spec in specs.items() if name != "file"}
    cost = {n: sum(a.seconds(CPU) for a in p.artifacts) for n, p in plans.items() if p.trials}
    for name in sorted(cost, key=cost.__getitem__)[: 2 if book.small else None]:
        attempt(book, "attacks", name, functools.partial(grid, book, [specs[name]]))


PARTS: dict[str, tuple[Callable[[Book], None], float]] = {
    "ends": (ends, 0.35),
    "speed": (speed, 0.2),
    "together": (together, 0.3),
    "fast": (fast, 0.5),
    "attacks": (attacks, 1.0),
}
"""Each part and the share of the time that is left when it begins."""


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=Path("gpu.jsonl"))
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the datasets")
    parser.add_argument("--device", help="cuda:0 or cpu; CUDA_VISIBLE_DEVICES says which GPU")
    parser.add_argument("--import", dest="imports", action="append", default=[], metavar="MODULE")
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--small", action="store_true", help="few and small, to try it out")
    parser.add_argument("--go-on", action="store_true", help="--out is this call's own beginning")
    return parser.parse_args()


def start_anew(args: argparse.Namespace, parts: list[str], seconds: float) -> None:
    """Go on with these parts in a fresh process, which takes the place of this one."""
    words = [sys.executable, *sys.argv]
    words += ["--go-on", "--minutes", str(seconds / 60), "--parts", *parts]
    sys.stdout.flush()
    os.execv(sys.executable, words)


def main() -> None:
    args = options()
    load_plugins(args.imports)  # a device of their own has no name before
    device = torch.device(args.device or best_device())
    settle(device)
    end = time.monotonic() + 60 * args.minutes
    before = args.out.read_text(encoding="utf-8").splitlines() if args.go_on else []
    rows = [json.loads(line) for line in before]
    whole = Book(args.out, end, device, args.small, rows, end, tuple(args.imports), args.data)
    if not args.go_on:
        about = f"{device_name(device)}, commit {commit()}, Python {platform.python_version()}, "
        about += ", ".join(f"{name} {version}" for name, version in versions().items())
        whole.note("about", about, state="ok")
    for number, name in enumerate(args.parts):
        part, share = PARTS[name]
        print(f"{name}: {whole.left / 60:.1f} minutes are left", flush=True)
        try:
            part(replace(whole, until=time.monotonic() + share * max(whole.left, 0)))
        except Lost:
            whole.note(name, "the rest of it", state="left out, the GPU was lost")
            start_anew(args, args.parts[number + 1 :], whole.left)
    print("\n".join(["", *table(whole.rows)]))


if __name__ == "__main__":
    main()
