"""How near gradient attacks come to the bare passes through their networks.

Each attack runs once while the passes through its networks are counted by kind and batch size
(training; input gradient of a frozen network; no gradient), then it is timed against a loop that
does nothing but these passes: python experiments/benchmarks/gradient_attacks.py --help
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.base import Network
from raygrid.attacks import ATTACKS
from raygrid.attacks.base import Attack, Craft
from raygrid.attacks.surrogates import freeze
from raygrid.data import Images
from raygrid.seeds import Stream
from raygrid.training import place

BATCH = 128
SETTINGS = {
    "em": "max_rounds=1, steps=10, stop_error=0",
    "em_apb": "max_rounds=1, stop_error=0",
    "rem_apb": "max_rounds=1, stop_error=0",
    "em_remrepo": "train_steps=8, steps=5",
    "rem": "train_steps=2, steps=2, copies=2, adv_steps=4",
    "tap": "steps=10",
    "tap_remrepo": "steps=10",
    "pgd": "steps=10",
    "mifgsm": "steps=10",
    "hypo": "steps=10",
    "sep": "variant=ce, steps=5, checkpoints=3, surrogate_epochs=3",
    "functional": "steps=5",
}

Pass = tuple[str, int]
"""Kind of a pass and its batch size."""


@contextmanager
def counted() -> Iterator[Counter[Pass]]:
    """Count the passes through every network."""
    counts: Counter[Pass] = Counter()

    def look(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if isinstance(module, Network):
            kind = "train" if module.training else "input"
            counts[kind if torch.is_grad_enabled() else "none", len(args[0])] += 1

    handle = register_module_forward_pre_hook(look)
    try:
        yield counts
    finally:
        handle.remove()


def replay(network: nn.Module, counts: Counter[Pass], images: Images) -> None:
    """The same passes and nothing else."""
    device = images.pixels.device
    for (kind, size), count in counts.items():
        rows = torch.arange(size, device=device) % len(images)
        x, y = images.floats(rows), images.labels[rows]
        network.train(kind == "train")
        network.requires_grad_(kind == "train")
        x.requires_grad_(kind == "input")
        wanted = list(network.parameters()) if kind == "train" else [x]
        for _ in range(count):
            if kind == "none":
                with torch.no_grad():
                    network(x)
            else:
                loss = nn.functional.cross_entropy(network(x), y, reduction="sum")
                torch.autograd.grad(loss, wanted)


def craft_for(attack: Attack, make: Callable[[], Network], device: torch.device) -> Craft:
    """A working place with untrained surrogates: time does not depend on the weights."""
    surrogates: dict[str, nn.Module] = {}
    for recipe in attack.needs():
        networks = [make() for _ in recipe.kept or (0,)]
        surrogates[recipe.name] = freeze(nn.ModuleList(networks) if recipe.kept else networks[0])
    return Craft(Stream("benchmark"), device, surrogates)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(
    attack: Attack, make: Callable[[], Network], images: Images, device: torch.device, repeats: int
) -> tuple[Counter[Pass], float, float]:
    """The passes of an attack, its seconds and those of the bare passes, each the best of some.

    Both are timed in turn, so that a busy machine slows both.
    """
    craft = craft_for(attack, make, device)
    with counted() as counts:
        attack.pixels(images, craft)
    network, near = make(), images.to(device)
    bare, ours = [], []
    for _ in range(repeats):
        bare.append(seconds(lambda: replay(network, counts, near), device))
        ours.append(seconds(lambda: attack.pixels(images, craft), device))
    return counts, min(ours), min(bare)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attacks", nargs="*", default=list(SETTINGS))
    parser.add_argument("--architecture", default="small_cnn")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    kind = ARCHITECTURES.make(args.architecture)
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (args.images, 3, 32, 32), generator=rng, dtype=torch.uint8)
    images = Images(pixels, torch.arange(args.images) % 10, 10)

    def make() -> Network:
        network = kind.build(10, 32, 0)
        place(network, device, kind.convolutional)
        return network

    print(f"{args.architecture} on {device}, {args.images} images, batches of {args.batch}")
    print("attack        passes (kind x batch: count)                 attack s  bare s  share")
    for name in args.attacks:
        part = f"{name}({SETTINGS[name]}, surrogate={args.architecture}, batch_size={args.batch})"
        attack = ATTACKS.make(part)
        counts, ours, bare = measure(attack, make, images, device, args.repeats)
        passes = ", ".join(f"{k}x{size}: {n}" for (k, size), n in counts.items())
        print(f"{name:<13} {passes:<44} {ours:8.2f} {bare:7.2f} {bare / ours:6.0%}", flush=True)


if __name__ == "__main__":
    main()
