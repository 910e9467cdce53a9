"""Seconds of simple filters on 50,000 images, of purifiers on 64 random ones, of UEraser-Lite
beside a training step, of UEraser-Max beside its passes in float32, of D-VAE, AVATAR.

    python experiments/benchmarks/defenses.py [PART ...] [--images 50000] [--device cpu]

Everything is measured in this one run, in processor seconds beside those of the clock: on a machine
that others use, the clock counts their work too.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from header import header
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from raygrid.architectures import ARCHITECTURES
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.defenses import DEFENSES
from raygrid.defenses.avatar import Avatar
from raygrid.defenses.base import Defense, FitContext
from raygrid.nn.diffusion import DENOISER_SIZES, Predictor, of_unet, unet
from raygrid.nn.diffusion.files import SCORE_SDE, of_network
from raygrid.nn.diffusion.unets import DiffusionUNet
from raygrid.nn.networks import to_device
from raygrid.nn.steps import autocast
from raygrid.nn.vae import VaeFit, VaeSize
from raygrid.nn.vae.fitting import fresh_autoencoder

DETECTOR = "architecture=small_cnn, classifier_epochs=1, epochs=1"
FITTED = (
    "vae(epochs=1)",
    "avatar(size=xs, steps=1, updates=1)",
    "avatar(size=tiny, steps=4, updates=1)",
    "dvae(epochs=1)",
    "dvae(epochs=1, shrink=4)",
    f"dvae_detect({DETECTOR})",
    f"dvae_detect({DETECTOR}, shrink=4)",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"unknown part {unknown[0]}; there are {', '.join(PARTS)}")
    device = torch.device(options.device)
    print(header())
    print(
        f"load:    {os.getloadavg()[0]:.1f}, {torch.get_num_threads()} torch threads, on {device}"
    )
    for part in options.parts or PARTS:
        PARTS[part](device, options.images)


def filters(_: torch.device, count: int) -> None:
    """Each filter on all images; JPEG and Pillow's loop in turn on fiftieths of them."""
    images = photographs(count)
    fit_context = FitContext(Stream("purify"), torch.device("cpu"))
    print(f"\n{len(images)} images of 32 x 32     processor s   clock s   target, share of it")
    for name in ("jpeg", "bdr", "grayscale", "mean_filter", "median_filter", "gaussian(sigma=1.0)"):
        defense = DEFENSES.make(name)
        defense.purify(images.rows(torch.arange(2)), fit_context)  # imports what it needs
        used, clock = timed(lambda d=defense: d.purify(images, fit_context))  # type: ignore[misc]
        bound = 15 * len(images) / 50_000  # seconds
        target = f"< {bound:g}  {clock / bound:.0%}" if name in ("jpeg", "bdr", "grayscale") else ""
        print(f"  {name:28s}{used:9.2f}{clock:10.2f}   {target}")
    jpeg, ratios = DEFENSES.make("jpeg"), []
    for part in images.pixels.split(max(1, len(images) // 50))[:9]:
        few = Images(part, torch.zeros(len(part), dtype=torch.int64), 1)
        ours, _ = timed(lambda i=few: jpeg.purify(i, fit_context))  # type: ignore[misc]
        theirs, _ = timed(lambda p=part: pillow(p))  # type: ignore[misc]
        ratios.append(theirs / ours)
    print(f"  a loop with Pillow takes {statistics.median(ratios):.1f} times as long as jpeg")
    print(f"  (median of 9 pairs, {min(ratios):.1f} to {max(ratios):.1f}; target: at least 2)")


def pillow(pixels: Tensor) -> None:
    """What a thread does without raygrid."""
    for array in pixels.permute(0, 2, 3, 1).contiguous().numpy():
        file = io.BytesIO()
        Image.fromarray(array).save(file, "JPEG", quality=10)
        np.asarray(Image.open(file))


def fitting(device: torch.device, _: int) -> None:
    """Purifiers that fit a network, for as short as they can, on 64 images of random noise."""
    noise = torch.randint(256, (64, 3, 32, 32), generator=Stream("benchmark").generator())
    images = Images(noise.to(torch.uint8), torch.arange(64) % 10, 10)
    print("\n64 random images           processor s   clock s   share of 2 s")
    for name in FITTED:
        defense, shop = DEFENSES.make(name), FitContext(Stream("purify"), device)

        def purify(d: Defense = defense, w: FitContext = shop) -> None:
            d.purify(images, w)
            finish(device)

        purify()  # imports what it needs
        used, clock = min(timed(purify) for _ in range(3))
        print(f"  {name:66s}{used:6.2f}{clock:8.2f}{clock / 2:8.0%}")


def lite(device: torch.device, _: int) -> None:
    """UEraser-Lite on a batch of 128 beside one training step of a ResNet-18 on it."""
    x, y = batch_on(device)
    defense = DEFENSES.make("ueraser_lite")
    rng = Stream("batch").generator()
    step = steps_with(device, "bf16", lambda network: cross_entropy(network(x).float(), y))

    def augment() -> None:
        defense.augment(x, y, rng)
        finish(device)

    slow, extra = in_turns(device, step, augment)
    print("\na batch of 128             milliseconds")
    print(f"  ResNet-18, one step in bf16{1000 * slow:12.1f}")
    print(f"  UEraser-Lite               {1000 * extra:12.1f}")
    print(f"  share of the step: {extra / slow:.1%} (target: below 50%)")


def worst(device: torch.device, _: int) -> None:
    """UEraser-Max's step beside its five passes in float32, as its authors and APBench train.

    The passes see five batches that are augmented already, so they are less than a program's step.
    """
    x, y = batch_on(device)
    rng = Stream("batch").generator()
    print("\na batch of 128, ResNet-18  milliseconds   times as fast as five passes in float32")
    for spec in ("ueraser_max", "ueraser_max(two_pass=true)"):
        defense = DEFENSES.make(spec)

        def ours(network: nn.Module, d: Defense = defense) -> Tensor:
            return d.loss(network, x, y, rng)[0]

        def passes(network: nn.Module) -> Tensor:
            versions = [cross_entropy(network(x), y, reduction="none") for _ in range(5)]
            return torch.stack(versions).max(0).values.mean()

        step, bare = steps_with(device, "bf16", ours), steps_with(device, "fp32", passes)
        spent, bound = in_turns(device, step, bare)
        print(f"  {spec:28s}{1000 * spent:10.1f}{bound / spent:10.2f}")


def batch_on(device: torch.device) -> tuple[Tensor, Tensor]:
    """128 images of random noise and their labels."""
    rng = Stream("benchmark").generator()
    return torch.rand(128, 3, 32, 32, generator=rng).to(device), torch.arange(128).to(device) % 10


def steps_with(
    device: torch.device, precision: str, loss_of: Callable[[nn.Module], Tensor]
) -> Callable[[], None]:
    """Training steps of a ResNet-18 that descend a loss."""
    network = to_device(ARCHITECTURES.make("resnet18").build(10, 32, 0), device, True)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

    def step() -> None:
        with autocast(precision, device):
            loss = loss_of(network)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        finish(device)

    return step


def in_turns(
    device: torch.device, first: Callable[[], None], second: Callable[[], None], rounds: int = 5
) -> tuple[float, float]:
    """Median seconds of two, after two rounds of warming up; the clock's on a GPU alone."""
    kind = 1 if device.type == "cuda" else 0
    pairs = [(timed(first)[kind], timed(second)[kind]) for _ in range(2 + rounds)][2:]
    one, other = (statistics.median(side) for side in zip(*pairs, strict=True))
    return one, other


def disentangling(device: torch.device, _: int) -> None:
    """Training D-VAE beside nothing but its updates, on one batch that is there already."""
    gpu = device.type == "cuda"
    kind, side, batches = (1, 32, 100) if gpu else (0, 16, 2)
    images = photographs(128 * batches).pixels[..., :side, :side].contiguous()
    train = Images(images, torch.arange(len(images)) % 10, 10)
    how = VaeFit(VaeSize.disentangling(side, 10, "spatial"), 1.0, 60)
    network, trainer = fresh_autoencoder(how, train, FitContext(Stream("benchmark"), device))
    batch = next(trainer.batches(0))
    network.train()

    def updates() -> None:
        for _ in range(batches):
            trainer.update(batch)
        finish(device)

    def epoch() -> None:
        trainer.epoch(0)
        finish(device)

    pairs = [(timed(updates)[kind], timed(epoch)[kind]) for _ in range(4)][1:]
    bound, spent = (statistics.median(s) / batches for s in zip(*pairs, strict=True))
    print(f"\nD-VAE, a batch of 128 of {side} x {side}    milliseconds")
    print(f"  the update alone           {1000 * bound:12.1f}")
    print(f"  in the training loop       {1000 * spent:12.1f}")
    print(f"  the loop reaches {bound / spent:.1%} of its bound (target: at least 90%)")


def diffusing(device: torch.device, _: int) -> None:
    """Images a second that AVATAR denoises, all steps of one image after another batch by batch."""
    gpu = device.type == "cuda"
    batch, steps, kind = (250, 60, 1) if gpu else (16, 2, 0)
    images = photographs(batch)
    print(f"\nAVATAR, 60 steps             images a second (batches of {batch})")
    for name, predictor in predictors(device):
        avatar = Avatar(steps=steps)
        shop = FitContext(Stream("benchmark"), device)

        def denoise(a: Avatar = avatar, p: Predictor = predictor, w: FitContext = shop) -> None:
            a.denoised(images, p, w)
            finish(device)

        denoise()
        seconds = statistics.median(timed(denoise)[kind] for _ in range(3))
        print(f"  {name:28s}{batch * steps / 60 / seconds:10.2f}")


def predictors(device: torch.device) -> Iterator[tuple[str, Predictor]]:
    """Noise predictors of every size with fresh weights, and score-SDE's for CIFAR-10."""
    for size, kind in DENOISER_SIZES.items():
        network = unet(size, 32).to(device)
        yield f"{size} ({kind.millions:g} million)", of_unet(network, 32)
    deep = DiffusionUNet(SCORE_SDE.family, SCORE_SDE.layouts[0], 32, 128).to(device)
    yield "score-SDE, deep (107 million)", of_network(deep, SCORE_SDE, 32)


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds of one call: of the processor and of the clock."""
    used, clock = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - used, time.perf_counter() - clock


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def photographs(n: int) -> Images:
    """Smooth random images: JPEG takes as long for them as for photographs."""
    rng = Stream("benchmark").generator()
    coarse = torch.rand(n, 3, 8, 8, generator=rng)
    fine = torch.nn.functional.interpolate(coarse, size=32, mode="bilinear")
    noise = torch.randn(n, 3, 32, 32, generator=rng).mul_(0.03)
    pixels = fine.add_(noise).clamp_(0, 1).mul_(255).to(torch.uint8)
    return Images(pixels, torch.arange(n) % 10, 10)


PARTS: dict[str, Callable[[torch.device, int], None]] = {
    "filters": filters,
    "fitting": fitting,
    "ueraser_lite": lite,
    "ueraser_max": worst,
    "dvae": disentangling,
    "avatar": diffusing,
}


if __name__ == "__main__":
    main()
