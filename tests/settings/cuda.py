"""Sadasivan et al. 2023 (CUDA): their code."""

from __future__ import annotations

import torch

from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.attacks.cuda import Cuda
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.literature.names import PAPER_PROTOCOLS
from raygrid.trials.resolve import resolve
from tests.settings.rules import Getter, PrintedRow, Rule, attack, defense, every, recipe, words

STORED = {"trunc": "truncated"}
START = "at starts from a normal draw around the image, a step wide, as in APBench"
CROPS = {"crop_flip": "crop 4, flip"}


def augmented(row: PrintedRow) -> str:
    """How victims of the protocol see CIFAR-10."""
    protocol = PAPER_PROTOCOLS[row["paper"]]
    return resolve(f"cifar10/clean/standard/resnet18/supervised/{protocol}/0", None).augmentation


def kernels(side: int) -> torch.Tensor:
    """Of many classes of black images of this size."""
    found = ATTACKS.make("cuda")
    assert isinstance(found, Cuda)
    pixels = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    images = Images(pixels, torch.zeros(1, dtype=torch.int64), 500)
    return found.kernels(images, AttackContext(Stream("poison")))


def relative_step(row: PrintedRow) -> float:
    """Of adversarial training, in radii, times the steps."""
    step, steps, radius = (float(str(defense(path)(row))) for path in ("step", "steps", "radius"))
    return round(step * steps / radius, 9)


def size(side: int) -> Getter:
    return lambda row: kernels(side).shape[-1]


def blur(side: int) -> Getter:
    """The largest of thousands of entries but those of 1, to two digits."""

    def look(row: PrintedRow) -> float:
        drawn = kernels(side)
        return round(float(drawn[drawn < 1].max()), 2)

    return look


RULES = (
    Rule(r"code/cuda/kernel_size", size(32)),
    Rule(r"code/cuda/blur_parameter", blur(32)),
    Rule(r"code/cuda/kernel_size_imagenet100", size(224)),
    Rule(r"code/cuda/blur_parameter_imagenet100", blur(224)),
    Rule(r"code/cuda/center_parameter", lambda row: float(kernels(32).max())),
    Rule(r"code/cuda/storage", words(attack("quant"), STORED)),
    Rule(r"code/training/epochs", recipe("epochs")),
    Rule(r"code/training/batch_size", recipe("batch_size")),
    Rule(r"code/training/optimizer", recipe("optimizer")),
    Rule(r"code/training/learning_rate", recipe("lr")),
    Rule(r"code/training/momentum", recipe("momentum")),
    Rule(r"code/training/weight_decay", recipe("weight_decay")),
    Rule(r"code/training/milestones", recipe("milestones")),
    Rule(r"code/training/gradient_clip", recipe("grad_clip")),
    Rule(r"code/training/augmentation", words(augmented, CROPS), said="{}"),
    Rule(r"code/at/steps", defense("steps")),
    Rule(
        r"code/at4/radius",
        defense("radius"),
        why="the table prints 4/255, as the name of that file says; 0.015 is 3.83/255",
        instead=4 / 255,
    ),
    Rule(r"code/at4.*/step", every(relative_step), said="{} radius / steps"),
    Rule(r"code/at/start", why=START),
)
