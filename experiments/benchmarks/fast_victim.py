"""The step of a fast victim against a bare PyTorch loop that does the same, and its augmentation.

    python experiments/benchmarks/fast_victim.py [--network small_airbench] [--rung minutes]
        [--batch 500] [--steps 8] [--rounds 5] [--compile] [--pair]

Contenders take turns; the median of the rounds counts, of processor time on a CPU, so that what
runs beside it matters less. The batch is the rung's own. The bare loop holds the same uint8
tensors, network, optimizer, augmentation and precision, and nothing of raygrid's loop. `--compile`:
the step of torch.compile, and the seconds it takes to get there. `--pair`: two processes that train
at once against one of them alone, by the clock on the wall, so nothing else may run.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection

import torch
from header import header
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.core.images import Images
from raygrid.core.memory import lifetime_peak
from raygrid.core.seeds import Stream
from raygrid.core.spec import Part
from raygrid.datasets import DATASETS
from raygrid.defenses.chain import Chain
from raygrid.learners import LEARNERS
from raygrid.learners.base import Task
from raygrid.learners.supervised import SupervisedSession
from raygrid.nn import augment
from raygrid.nn.networks import untrained
from raygrid.nn.optimizers import grouped, make_optimizer
from raygrid.nn.recipes import Recipe
from raygrid.protocols import PROTOCOLS

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CLOCK = time.perf_counter if DEVICE.type == "cuda" else time.process_time
MOMENTS = (DATASETS["cifar10"].mean, DATASETS["cifar10"].std)
Contender = Callable[[], None]


def images_of(count: int) -> Images:
    """Noise of CIFAR-10's shape: speed does not depend on what is seen."""
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 3, 32, 32), generator=rng, dtype=torch.uint8)
    return Images(pixels, torch.randint(10, (count,), generator=rng), 10).to(DEVICE)


def ours(images: Images, name: str, recipe: Recipe, augmented: bool = True) -> Contender:
    """An epoch of raygrid's own loop."""
    streams = {axis: Stream(axis) for axis in ("init", "data", "views", "probe")}
    task = Task(
        train=images,
        labeled=images,
        architecture=ARCHITECTURES.make(name),
        recipe=recipe,
        defense=Chain.make((Part("standard"),)),
        streams=streams,
        augmentation=augment.standard("shift_flip", 32) if augmented else None,
        normalization=MOMENTS,
    )
    session = LEARNERS.make("supervised").start(task)
    assert isinstance(session, SupervisedSession)
    return lambda: void(session.epoch(0))


def void(_: object) -> None:
    synchronize()


def synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def bare(images: Images, name: str, recipe: Recipe, compiled: bool = False) -> Contender:
    """The same training written out, as one would without raygrid."""
    model = untrained(ARCHITECTURES.make(name), images, 0, DEVICE, MOMENTS)
    groups = grouped(model, recipe)
    optimizer = make_optimizer(groups, recipe)
    run: nn.Module = torch.compile(model) if compiled else model  # type: ignore[assignment]
    count, size = len(images), recipe.batch_size
    mirrored = torch.rand(count, device=DEVICE) < 0.5

    def epoch() -> None:
        model.train()
        order = torch.randperm(count, device=DEVICE)
        for number, rows in enumerate(order.split(size)):
            share = 1 - number * size / count / recipe.epochs
            for (kind, _), group in zip(groups, optimizer.param_groups, strict=True):
                rate = recipe.lr if kind is None else kind.lr * (size if kind.per_image else 1)
                group["lr"] = rate * share
            x = images.pixels[rows].float().div_(255)
            x = shifted(x, mirrored[rows])
            with torch.autocast(DEVICE.type, torch.bfloat16):
                logits = run(x)
            smooth = recipe.smoothing
            target = images.labels[rows]
            loss = nn.functional.cross_entropy(logits.float(), target, label_smoothing=smooth)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        synchronize()

    return epoch


def shifted(x: Tensor, mirrored: Tensor, reach: int = 2) -> Tensor:
    """Reflected translation and flip: a copy for each of the 25 offsets that is drawn."""
    padded = nn.functional.pad(x, (reach,) * 4, "reflect")
    padded = torch.where(mirrored.view(-1, 1, 1, 1), padded.flip(-1), padded)
    offsets = torch.randint(2 * reach + 1, (len(x), 2), device=x.device)
    out = torch.empty_like(x)
    side = x.shape[-1]
    for down in range(2 * reach + 1):
        for right in range(2 * reach + 1):
            here = (offsets[:, 0] == down) & (offsets[:, 1] == right)
            out[here] = padded[here, :, down : down + side, right : right + side]
    return out


def measure(contenders: dict[str, Contender], steps: int, rounds: int) -> dict[str, float]:
    """Median seconds of a step by contender, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            started = CLOCK()
            run()
            if number:
                seconds[name].append((CLOCK() - started) / steps)
    return {name: statistics.median(values) for name, values in seconds.items()}


def train_when_told(pipe: Connection, name: str, recipe: Recipe, steps: int, threads: int) -> None:
    """A process of a pair: trains an epoch whenever it is told, and answers with its seconds."""
    torch.set_num_threads(threads)
    run = ours(images_of(recipe.batch_size * steps), name, recipe)
    run()
    pipe.send("ready")
    while pipe.recv():
        started = time.perf_counter()
        run()
        pipe.send(time.perf_counter() - started)


@contextmanager
def two_processes(
    name: str, recipe: Recipe, steps: int, threads: int
) -> Iterator[list[Connection]]:
    """The pipes of two processes that are ready to train."""
    spawned = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(2):
        ours_end, theirs = spawned.Pipe()
        given = (theirs, name, recipe, steps, threads)
        processes.append(spawned.Process(target=train_when_told, args=given, daemon=True))
        processes[-1].start()
        pipes.append(ours_end)
    for pipe in pipes:
        pipe.recv()
    yield pipes
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(False)
        process.join()


def at_once(pipes: Sequence[Connection]) -> float:
    """Seconds until all of these processes, which begin together, have trained an epoch."""
    for pipe in pipes:
        pipe.send(True)
    return max([pipe.recv() for pipe in pipes])


def pair(pipes: Sequence[Connection], rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of an epoch by round: of one process alone, one in turn, and of both at once."""
    alone, both = [], []
    for number in range(rounds + 1):
        seconds = at_once([pipes[number % 2]]), at_once(pipes)
        if number:  # the first round does not count
            alone.append(seconds[0])
            both.append(seconds[1])
    return alone, both


def say_pair(alone: Sequence[float], both: Sequence[float], steps: int) -> None:
    """Print the step rates, and how much more two do than one."""
    one, two = steps / statistics.median(alone), 2 * steps / statistics.median(both)
    print(f"one process: {one:.2f} steps/s; two at once: {two:.2f} steps/s together")
    times = [2 * single / double for single, double in zip(alone, both, strict=True)]
    low, high = min(times), max(times)
    middle = statistics.median(times)
    print(f"two processes do {middle:.2f} times the steps of one ({low:.2f} to {high:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--network", default="small_airbench")
    parser.add_argument("--rung", default="minutes")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--pair", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(header())
    protocol = PROTOCOLS.make(f"fast(rung={args.rung})")
    usual = protocol.recipe("supervised", "cifar10", 32, (), args.network)
    batch = args.batch or usual.batch_size
    recipe = dataclasses.replace(usual, batch_size=batch, min_steps=0)
    print(f"{args.network}, fast(rung={args.rung}), batches of {batch}")
    images = images_of(batch * args.steps)
    contenders = {
        "raygrid": ours(images, args.network, recipe),
        "bare": bare(images, args.network, recipe),
        "raygrid, no augmentation": ours(images, args.network, recipe, augmented=False),
    }
    if args.compile:
        contenders["bare, compiled"] = bare(images, args.network, recipe, compiled=True)
        started = time.perf_counter()  # compilers are processes of their own
        contenders["bare, compiled"]()
        print(f"compiling and {args.steps} steps: {time.perf_counter() - started:.1f} s")
    found = measure(contenders, args.steps, args.rounds)
    for name, value in found.items():
        print(f"{name}: {1000 * value:.0f} ms a step, {batch / value:.0f} images/s")
    share = 1 - found["raygrid, no augmentation"] / found["raygrid"]
    print(f"raygrid's step is {found['bare'] / found['raygrid']:.3f} of the bare loop's speed")
    print(f"augmentation takes {100 * share:.1f} % of a step")
    if args.compile:
        print(f"compiled: {found['bare'] / found['bare, compiled']:.2f} times the bare speed")
    print(f"peak memory of this process: {lifetime_peak() / 2**10:.2f} GiB")
    if args.pair:
        with two_processes(args.network, recipe, args.steps, args.threads) as pipes:
            say_pair(*pair(pipes, args.rounds), args.steps)


if __name__ == "__main__":
    main()
