"""How fast contrastive views are: beside lightly's PIL transform, and as a part of training.

    python experiments/benchmarks/augmentation.py

One CPU thread; every figure is CPU time, the least of several runs. Exits with 1 if a bound is
missed: two views at least 10 times as fast as lightly's, under a quarter of a ResNet-18 SimCLR
step, and an epoch of SimCLR with the small network on 5,000 images under 20 seconds.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from lightly.transforms import SimCLRTransform
from PIL import Image

from raygrid.architectures import ARCHITECTURES
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.core.spec import Part
from raygrid.defenses.chain import Chain
from raygrid.learners import LEARNERS
from raygrid.learners.base import Task
from raygrid.learners.common.two_views import TwoViewSession
from raygrid.nn.augment import CropFlip, Views
from raygrid.nn.recipes import Recipe

BATCH, SIDE = 256, 32
STREAM = Stream("benchmark")


def photos(n: int) -> Images:
    """Smooth random color fields of CIFAR's size."""
    coarse = torch.rand(n, 3, 8, 8, generator=STREAM.generator("photos"))
    smooth = torch.nn.functional.interpolate(coarse, SIDE, mode="bilinear")
    return Images((smooth * 255).to(torch.uint8), torch.arange(n) % 10, 10)


def best(run: Callable[[], object], times: int) -> float:
    """CPU seconds of the fastest of several runs."""
    seconds = []
    for _ in range(times):
        started = time.process_time()
        run()
        seconds.append(time.process_time() - started)
    return min(seconds)


def ours(images: Images) -> float:
    """Seconds for two views of an image, in a batch."""
    views, rng = Views(), STREAM.generator("views")

    def two_views() -> None:
        x = images.floats(slice(0, BATCH))
        views(x, rng)
        views(x, rng)

    return best(two_views, 100) / BATCH


def lightly(images: Images) -> float:
    """Seconds for two views of an image by lightly, from PIL images to tensors."""
    transform = SimCLRTransform(
        input_size=SIDE,
        cj_strength=1.0,
        cj_bright=0.4,
        cj_contrast=0.4,
        cj_sat=0.4,
        cj_hue=0.1,
        min_scale=0.2,
        gaussian_blur=0.0,
        normalize=None,
    )
    pictures = [Image.fromarray(p.permute(1, 2, 0).numpy()) for p in images.pixels[:BATCH]]
    return best(lambda: [transform(p) for p in pictures], 5) / BATCH


def session(images: Images, architecture: str, batch_size: int) -> TwoViewSession:
    """SimCLR, ready to train."""
    task = Task(
        train=images,
        labeled=images,
        architecture=ARCHITECTURES.make(architecture),
        recipe=Recipe(epochs=10, batch_size=batch_size, lr=0.1, drop_last=True),
        defense=Chain.make((Part("standard"),)),
        streams={axis: STREAM.child(axis) for axis in ("init", "data", "views", "probe")},
        augmentation=CropFlip(4),
        normalization=None,
    )
    made = LEARNERS.make("simclr").start(task)
    assert isinstance(made, TwoViewSession)
    return made


def share_of_a_step(images: Images) -> tuple[float, float]:
    """Seconds of a ResNet-18 SimCLR step, and the share of it that goes into the views."""
    size = BATCH // 4
    trained = session(images, "resnet18", size)
    batch = next(trained.trainer.batches(0))
    trained.framework.train()
    step = best(lambda: trained.trainer.update(batch), 3)
    return step, best(lambda: trained.pair(batch), 5) / step


def epoch(images: Images) -> float:
    """Seconds of an epoch of SimCLR with the small network, kNN included."""
    trained = session(images, "small_cnn", BATCH)
    numbers = iter(range(2))
    return best(lambda: trained.epoch(next(numbers)), 2)


def machine() -> str:
    """The processor and the commit that is measured."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = {line.split(":", 1)[1].strip() for line in file if line.startswith("model name")}
    command = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return f"{' / '.join(names) or platform.machine()}, torch {torch.__version__}, commit {commit}"


def main() -> int:
    torch.set_num_threads(1)
    images = photos(5000)
    print(f"{machine()}\npython experiments/benchmarks/augmentation.py, one thread")
    mine, theirs = ours(images), lightly(images)
    step, share = share_of_a_step(images)
    seconds = epoch(images)
    print(f"two views of an image, ours      {1e6 * mine:8.0f} us (batch of {BATCH})")
    print(f"two views of an image, lightly   {1e6 * theirs:8.0f} us ({theirs / mine:.1f} times)")
    print(
        f"ResNet-18 SimCLR step            {step:8.2f} s  (batch {BATCH // 4}), views {share:.1%}"
    )
    print(f"SimCLR epoch, 5,000 images       {seconds:8.1f} s  (small_cnn)")
    met = theirs / mine >= 10 and share < 0.25 and seconds < 20
    print("all bounds met" if met else "a bound is missed")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
