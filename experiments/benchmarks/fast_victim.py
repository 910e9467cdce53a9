"""The step of a fast victim against a bare PyTorch loop that does the same, and its augmentation.

    python experiments/benchmarks/fast_victim.py [--network small_airbench] [--batch 250]
        [--steps 8] [--rounds 5] [--compile]

Contenders take turns; the median of the rounds counts, of processor time on a CPU, so that what
runs beside it matters less. The bare loop holds the same uint8 tensors,
network, optimizer, augmentation and precision, and nothing of raygrid's loop. `--compile`: the step
of torch.compile, and the seconds it takes to get there.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import statistics
import time
from collections.abc import Callable

import torch
from header import header
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.core.spec import Part
from raygrid.datasets import DATASETS
from raygrid.defenses.base import Chain
from raygrid.learners import LEARNERS
from raygrid.learners.base import Task
from raygrid.learners.supervised import SupervisedSession
from raygrid.nn import augment
from raygrid.nn.optimizers import grouped, make_optimizer
from raygrid.nn.recipes import Recipe
from raygrid.nn.trainer import untrained
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="small_airbench")
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(header())
    usual = PROTOCOLS.make("fast").recipe("supervised", "cifar10", 32, (), args.network)
    recipe = dataclasses.replace(usual, batch_size=args.batch, min_steps=0)
    images = images_of(args.batch * args.steps)
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
        print(f"{name}: {1000 * value:.0f} ms a step, {args.batch / value:.0f} images/s")
    share = 1 - found["raygrid, no augmentation"] / found["raygrid"]
    print(f"raygrid's step is {found['bare'] / found['raygrid']:.3f} of the bare loop's speed")
    print(f"augmentation takes {100 * share:.1f} % of a step")
    if args.compile:
        print(f"compiled: {found['bare'] / found['bare, compiled']:.2f} times the bare speed")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of this process: {peak:.2f} GiB")


if __name__ == "__main__":
    main()
