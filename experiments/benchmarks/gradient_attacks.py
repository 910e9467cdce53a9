"""How near gradient attacks come to the bare passes through their networks.

Each attack runs once while the passes through its networks are counted by kind and batch size
(training; input gradient of a frozen network; no gradient), then it is timed against a loop that
does nothing but these passes (CPU time of one thread). For NTGA they are kernel evaluations of a
block; DC also differentiates a loss after a training step through that step, which is a kind of
its own (`ahead`).

    python experiments/benchmarks/gradient_attacks.py --help
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
from raygrid.architectures.networks.network import Network
from raygrid.attacks import ATTACKS, dc
from raygrid.attacks.base import Attack, AttackContext
from raygrid.attacks.common.ntk import KERNELS
from raygrid.attacks.common.unet import UNet
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.nn.networks import freeze, to_device

BATCH = 128
SETTINGS = {
    "em": "max_rounds=1, steps=10, stop_error=0",
    "em_apb": "max_rounds=1, stop_error=0",
    "rem_apb": "max_rounds=1, stop_error=0",
    "em_remrepo": "train_steps=8, steps=5",
    "rem": "train_steps=2, steps=2, copies=2, adv_steps=4",
    "tap": "steps=10",
    "tap_full": "steps=5, restarts=2",
    "tap_remrepo": "steps=10",
    "pgd": "steps=10",
    "mifgsm": "steps=10",
    "hypo": "steps=10",
    "sep": "variant=ce, steps=5, checkpoints=3, surrogate_epochs=3",
    "functional": "steps=5",
    "dc": "trials=1, inner_epochs=1, width=16, levels=3",
    "ntga": "block=128",
}
UNITS = {"ntga": range(1)}

Pass = tuple[str, str, int]
"""What is passed through (`net`, `unet`, `kernel`), how, and the batch size."""

BARE: dict[str, nn.Module] = {}
"""Networks of the attack at hand, for the bare passes."""


@contextmanager
def counted() -> Iterator[Counter[Pass]]:
    """Count the passes through every network, and the evaluations of NTGA's kernel."""
    counts: Counter[Pass] = Counter()
    inside = False

    def look(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        what = {Network: "net", UNet: "unet"}.get(type(module))
        if what is not None and not inside:
            kind = "train" if module.training else "input"
            BARE.setdefault(what, module)
            counts[what, kind if torch.is_grad_enabled() else "none", len(args[0])] += 1

    kernel = KERNELS["cnn"]

    def asked(held: Tensor, x: Tensor) -> Tensor:
        counts["kernel", "input" if torch.is_grad_enabled() else "none", len(held)] += 1
        return kernel(held, x)

    step_ahead = dc.ahead

    def stepped(classifier: nn.Module, shown: Tensor, x: Tensor, y: Tensor, lr: float) -> Tensor:
        nonlocal inside
        BARE.setdefault("net", classifier)
        counts["net", "ahead", len(x)] += 1
        inside = True
        try:
            return step_ahead(classifier, shown, x, y, lr)
        finally:
            inside = False

    handle = register_module_forward_pre_hook(look)
    KERNELS["cnn"], dc.ahead = asked, stepped
    BARE.clear()
    try:
        yield counts
    finally:
        KERNELS["cnn"], dc.ahead = kernel, step_ahead
        handle.remove()


def replay(counts: Counter[Pass], images: Images) -> None:
    """The same passes and nothing else."""
    for (what, kind, size), count in counts.items():
        rows = torch.arange(size, device=images.pixels.device) % len(images)
        work = kernel_pass if what == "kernel" else network_pass
        work = ahead_pass if kind == "ahead" else work
        with torch.set_grad_enabled(kind != "none"):
            for _ in range(count):
                work(BARE.get(what), kind, images, rows)


def network_pass(network: nn.Module | None, kind: str, images: Images, rows: Tensor) -> None:
    assert network is not None
    x = images.floats(rows).requires_grad_(kind == "input")
    network.train(kind == "train")
    network.requires_grad_(kind == "train")
    out = network(x)
    if kind == "none":
        return
    wanted = list(network.parameters()) if kind == "train" else [x]
    plain = out.dim() == 2
    loss = nn.functional.cross_entropy(out, images.labels[rows]) if plain else out.sum()
    torch.autograd.grad(loss, wanted)


def ahead_pass(network: nn.Module | None, kind: str, images: Images, rows: Tensor) -> None:
    assert network is not None
    network.train()
    network.requires_grad_(True)
    x, y = images.floats(rows), images.labels[rows]
    shown = x.clone().requires_grad_()
    torch.autograd.grad(dc.ahead(network, shown, x, y, 0.1), shown)


def kernel_pass(network: nn.Module | None, kind: str, images: Images, rows: Tensor) -> None:
    x = images.floats(slice(0, 128)).double().requires_grad_(kind == "input")
    out = KERNELS["cnn"](images.floats(rows).double(), x)
    if kind == "input":
        torch.autograd.grad(out.sum(), x)


def craft_for(attack: Attack, make: Callable[[], Network], device: torch.device) -> AttackContext:
    """A working place with untrained surrogates: time does not depend on the weights."""
    surrogates: dict[str, nn.Module] = {}
    for recipe in attack.needs():
        networks = [make() for _ in recipe.kept or (0,)]
        surrogates[recipe.name] = freeze(nn.ModuleList(networks) if recipe.kept else networks[0])
    return AttackContext(Stream("benchmark"), device, surrogates, units=UNITS.get(attack.id))


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of the one thread on a CPU, whatever else the machine does; on a GPU by the clock."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - started


def measure(
    attack: Attack, make: Callable[[], Network], images: Images, device: torch.device, repeats: int
) -> tuple[Counter[Pass], float, float]:
    """The passes of an attack, its seconds and those of the bare passes, each the best of some.

    Both are timed in turn: what else the machine does slows both.
    """
    context = craft_for(attack, make, device)
    with counted() as counts:
        attack.pixels(images, context)
    near = images.to(device)
    bare, ours = [], []
    for _ in range(repeats):
        bare.append(seconds(lambda: replay(counts, near), device))
        ours.append(seconds(lambda: attack.pixels(images, context), device))
    return counts, min(ours), min(bare)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
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
        to_device(network, device, kind.convolutional)
        return network

    print(f"{args.architecture} on {device}, {args.images} images, batches of {args.batch}")
    print("attack        passes (what kind x batch: count)            attack s  bare s  share")
    for name in args.attacks:
        settings = SETTINGS[name]
        if name != "ntga":
            settings += f", surrogate={args.architecture}, batch_size={args.batch}"
        attack = ATTACKS.make(f"{name}({settings})")
        counts, ours, bare = measure(attack, make, images, device, args.repeats)
        passes = ", ".join(f"{w} {k}x{size}: {n}" for (w, k, size), n in counts.items())
        print(f"{name:<13} {passes:<44} {ours:8.2f} {bare:7.2f} {bare / ours:6.0%}", flush=True)


if __name__ == "__main__":
    main()
