"""raygrid's training loop against a bare PyTorch loop and against Pillow with a DataLoader.

    python experiments/benchmarks/training_loop.py [--images 10000] [--rounds 3] [--bare]

images/s of small_cnn, batch 128, bf16, on this machine's cores; the contenders take turns, the
median of the rounds counts. Beside the bare loop raygrid takes turns step by step, since a busy
machine is never the same for two epochs: by the shortest tenth of the steps of each, in processor
seconds on a CPU. `--bare`: that alone. The bare loop sees the same uint8 tensors without
augmentation; the DataLoader crops, flips and converts Pillow images, with the best of 0, 1 and 2
workers.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from header import header
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from raygrid.architectures import ARCHITECTURES
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.nn.augment import CropFlip
from raygrid.nn.networks import to_device
from raygrid.nn.recipes import Recipe
from raygrid.nn.steps import Batch, Step, autocast, classify_step
from raygrid.nn.trainer import Trainer

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WARM = 5  # pairs that do not count
RECIPE = Recipe(epochs=1, schedule="constant")


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """What a usual pipeline reads: Pillow images, transformed one by one."""

    def __init__(self, images: Images) -> None:
        arrays = images.pixels.permute(0, 2, 3, 1).contiguous().numpy()
        self.pictures = [Image.fromarray(a) for a in arrays]
        self.labels = images.labels.tolist()
        steps = [transforms.RandomCrop(32, 4), transforms.RandomHorizontalFlip()]
        self.transform = transforms.Compose([*steps, transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.pictures[index]), self.labels[index]


def network(name: str) -> nn.Module:
    return to_device(ARCHITECTURES.make(name).build(10, 32, 0), DEVICE, True)


def ours(images: Images, name: str, augment: bool) -> Callable[[], None]:
    model = network(name)
    crop = CropFlip()

    def step(batch: Batch) -> Step:
        if augment:
            batch.x = crop(batch.x, batch.rng)
        return classify_step(model, batch, "bf16")

    trainer = Trainer(model, step, images.to(DEVICE), RECIPE, Stream("bench"))

    def epoch() -> None:
        trainer.epoch(0)

    return epoch


def descend(model: nn.Module, optimizer: torch.optim.Optimizer, x: object, y: object) -> None:
    with autocast("bf16", DEVICE):
        logits = model(x)
    loss = nn.functional.cross_entropy(logits.float(), y)  # type: ignore[arg-type]
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def our_steps(images: Images, name: str) -> Iterator[None]:
    """A training without end, a step at a time."""
    model = network(name)
    trainer = Trainer(
        model,
        lambda batch: classify_step(model, batch, "bf16"),
        images.to(DEVICE),
        RECIPE,
        Stream("bench"),
    )
    model.train()
    totals = torch.zeros(3, dtype=torch.float64, device=DEVICE)
    for epoch in itertools.count():
        for batch in trainer.batches(epoch):
            totals += trainer.update(batch)
            yield


def bare_steps(images: Images, name: str) -> Iterator[None]:
    """The same by hand."""
    model = network(name)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=5e-4, fused=True)
    pixels, labels = images.pixels.to(DEVICE), images.labels.to(DEVICE)
    model.train()
    while True:
        for index in torch.randperm(len(pixels), device=DEVICE).split(128):
            descend(model, optimizer, pixels[index].float().div_(255), labels[index])
            yield


def bare(images: Images, name: str) -> Callable[[], None]:
    steps = bare_steps(images, name)

    def epoch() -> None:
        for _ in range(-(-len(images) // 128)):
            next(steps)

    return epoch


def beside_bare(images: Images, name: str, pairs: int) -> tuple[float, float]:
    """How fast a step of raygrid is beside one by hand, in turns, each first every other time.

    The median of the pairs; and by the shortest tenth of each side's steps, which others on the
    machine have lengthened least.
    """
    sides = our_steps(images, name), bare_steps(images, name)
    spent: tuple[list[float], list[float]] = [], []
    for number in range(WARM + pairs):
        for side in (0, 1) if number % 2 else (1, 0):
            spent[side].append(processor(lambda steps=sides[side]: next(steps)))
    ours, bare = (values[WARM:] for values in spent)
    middle = statistics.median(b / a for a, b in zip(ours, bare, strict=True))
    short = [statistics.quantiles(values, n=10)[0] for values in (ours, bare)]
    return middle, short[1] / short[0]


def processor(work: Callable[[], None]) -> float:
    """Processor seconds on a CPU, where others only take the clock's; seconds of a GPU."""
    if DEVICE.type == "cuda":
        return timed(work)
    used = time.process_time()
    work()
    return time.process_time() - used


def pillow(images: Images, name: str, workers: int) -> Callable[[], None]:
    model = network(name)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=5e-4, fused=True)
    loader = DataLoader(
        Pictures(images), 128, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )

    def epoch() -> None:
        model.train()
        for x, y in loader:
            x = x.to(DEVICE, memory_format=torch.channels_last)
            descend(model, optimizer, x, y.to(DEVICE))

    return epoch


def timed(epoch: Callable[[], None]) -> float:
    started = time.perf_counter()
    epoch()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--architecture", default="small_cnn")
    parser.add_argument("--bare", action="store_true", help="beside the bare loop alone")
    args = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    print(header())
    n, name = args.images, args.architecture
    pixels = torch.randint(256, (n, 3, 32, 32)).to(torch.uint8)
    images = Images(pixels, torch.arange(n) % 10, 10)
    middle, short = beside_bare(images, name, 60 * args.rounds)
    print(f"{name} on {DEVICE}: {short:.3f} of the bare loop (median of pairs {middle:.3f})")
    if args.bare:
        return
    contenders = {
        "raygrid, no augmentation": ours(images, name, False),
        "bare PyTorch loop": bare(images, name),
        "raygrid, crop and flip": ours(images, name, True),
        **{f"Pillow + DataLoader, {w} workers": pillow(images, name, w) for w in (0, 1, 2)},
    }
    for epoch in contenders.values():
        epoch()
    times: dict[str, list[float]] = {label: [] for label in contenders}
    for _ in range(args.rounds):
        for label, epoch in contenders.items():
            times[label].append(timed(epoch))
    speed = {label: n / statistics.median(values) for label, values in times.items()}
    for label, value in speed.items():
        print(f"  {label:<34} {value:9.0f} images/s")
    best = max(value for label, value in speed.items() if label.startswith("Pillow"))
    print(f"{speed['raygrid, crop and flip'] / best:.2f} times Pillow + DataLoader")


if __name__ == "__main__":
    main()
