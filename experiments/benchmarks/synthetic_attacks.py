"""Seconds to poison a CIFAR-sized training set without a surrogate, and against plain loops.

    python experiments/benchmarks/synthetic_attacks.py [--images 50000] [--threads 1]

Rates against a loop are taken in one run on one machine: the loop is timed on as many images (AR)
or on one class (OPS), and both sides are divided by the work they did.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from tabulate import tabulate

from raygrid.attacks import ATTACKS
from raygrid.attacks.ar import Ar
from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.autoregression import find_processes
from raygrid.attacks.ops import shortcuts
from raygrid.core.images import Images
from raygrid.core.seeds import Stream

PARTS = ("lsp", "ar", "ops", "regions", "low_frequency", "noise")


def random_images(count: int, classes: int) -> Images:
    """Random 32 x 32 images with balanced classes; the attacks do not care what they show."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % classes, classes)


def seconds(action: Callable[[], object]) -> float:
    """CPU seconds of this process: wall seconds on an idle machine, and steady on a busy one."""
    start = time.process_time()
    action()
    return time.process_time() - start


def attack_seconds(part: str, images: Images) -> tuple[float, float]:
    """CPU and wall seconds from clean to final uint8 pixels; AR includes its search."""
    find_processes.cache_clear()
    attack = ATTACKS.make(part)
    context = AttackContext(Stream("poison", ("benchmark", attack.id, 0)))
    start = time.perf_counter()
    cpu = seconds(lambda: attack.pixels(images, context))
    return cpu, time.perf_counter() - start


def ar_convolutions(filters: torch.Tensor, count: int) -> None:
    """The recursion as the authors' code runs it: one convolution a pixel, image by image."""
    generator = torch.Generator().manual_seed(0)
    kernel = filters[:, None].float()
    for _ in range(count):
        field = torch.randn(3, 36, 36, generator=generator)
        for i, j in itertools.product(range(34), range(34)):
            window = field[None, :, i : i + 3, j : j + 3]
            value = torch.nn.functional.conv2d(window, kernel, groups=3)
            field[:, i + 2, j + 2] = value.view(3)


def ar_products(filters: torch.Tensor, count: int) -> None:
    """The same with one NumPy product a pixel, the leanest loop over pixels we know."""
    rng = np.random.default_rng(0)
    weights = filters.numpy()
    for _ in range(count):
        field = rng.standard_normal((3, 36, 36))
        for i, j in itertools.product(range(34), range(34)):
            window = field[:, i : i + 3, j : j + 3]
            field[:, i + 2, j + 2] = (weights * window).sum((1, 2))


def ar_rates(images: Images, loop_images: int) -> tuple[float, float, float]:
    """Seconds an image of the noise alone (no search, no rounding): both loops, ours."""
    attack = Ar()
    filters = attack.processes(images.classes, 3).filters
    one = seconds(lambda: ar_convolutions(filters[0], loop_images)) / loop_images
    two = seconds(lambda: ar_products(filters[0], loop_images)) / loop_images
    context = AttackContext(Stream("poison", ("benchmark", "ar", 0)))
    return one, two, seconds(lambda: attack.propose(images, context)) / len(images)


def ops_loop(members: np.ndarray) -> tuple[int, int]:
    """One class as the authors' code walks it: every position, every color, all images."""
    colors = np.array(list(itertools.product((0.0, 1.0), repeat=3)))
    x = members.astype(np.float64) / 255
    best = (-1.0, -1, -1)
    for place in range(32 * 32):
        for code, color in enumerate(colors):
            distance = np.abs(color - x[:, place])
            best = max(best, (float(distance.mean() / distance.std()), -place, -code))
    return -best[1], -best[2]


def ops_pass(members: np.ndarray) -> tuple[int, int]:
    """One class with one vectorized pass a color over all its pixels."""
    x = members.astype(np.float32) / 255
    best = (-1.0, -1, -1)
    for code, color in enumerate(itertools.product((0.0, 1.0), repeat=3)):
        distance = np.abs(x - np.array(color, dtype=np.float32))
        score = distance.mean((0, 2)) / distance.std((0, 2))
        place = int(score.argmax())
        best = max(best, (float(score[place]), -place, -code))
    return -best[1], -best[2]


def ops_rates(images: Images) -> tuple[float, float, float]:
    """Seconds a class of the search: loop, vectorized pass, ours."""
    members = images.pixels[images.labels == 0].flatten(2).permute(0, 2, 1).contiguous().numpy()
    loop = seconds(lambda: ops_loop(members))
    one_pass = seconds(lambda: ops_pass(members))
    return loop, one_pass, seconds(lambda: shortcuts(images, 1)) / images.classes


def commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--loop-images", type=int, default=50, help="images of AR's plain loops")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    images = random_images(args.images, args.classes)

    print(f"command: {shlex.join([sys.executable.rsplit('/', 1)[-1], *sys.argv])}")
    print(f"commit: {commit()}; torch {torch.__version__}; python {platform.python_version()}")
    print(f"machine: {platform.machine()}, {args.threads} threads; {args.images} images 3x32x32\n")
    times = [(part, *attack_seconds(part, images)) for part in PARTS]
    print(tabulate(times, headers=["attack", "CPU s", "wall s"], floatfmt=".2f"), "\n")
    convolutions, products, ours = ar_rates(images, args.loop_images)
    table = [
        ("ar, an image", "a convolution a pixel", convolutions, ours),
        ("ar, an image", "a NumPy product a pixel", products, ours),
    ]
    loop, passes, ours = ops_rates(images)
    table += [
        ("ops, a class", "loop over positions", loop, ours),
        ("ops, a class", "8 vectorized passes", passes, ours),
    ]
    rows = [(what, how, x * 1e3, y * 1e3, f"{x / y:.0f}x") for what, how, x, y in table]
    print(tabulate(rows, headers=["unit", "against", "theirs, ms", "ours, ms", "faster"]))


if __name__ == "__main__":
    main()
