"""Surrogates: networks that attacks differentiate, trained once and kept: the recipes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.base import fan_out_init
from raygrid.core.images import Images, moments
from raygrid.core.lazy import nn, torch
from raygrid.core.registry import Combination
from raygrid.nn.augment import Views, affine_shift
from raygrid.nn.augment.standards import standard
from raygrid.nn.networks import untrained
from raygrid.nn.recipes import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.architectures.networks.network import Network


@dataclass(frozen=True)
class SurrogateRecipe:
    """How a surrogate is trained on the clean training set, and which weights of it are kept.

    name: what the attack calls it. augmentation: see `augmentation`.
    normalization: inside the network; `data`: by mean and sd of the training pixels, `centered`:
    less 0.5. It takes the place of `recipe.normalize`, which is for victims.
    kept: epochs (counted from 0) after which weights are kept; the surrogate is then a ModuleList
    of one network for each. Empty: one network, that of the last epoch.
    held_out: training images kept back to choose the epoch whose network is kept; 0: the last.
    radius: largest change of a value, in [0, 1], that the network is trained against; 0: none.
    climb: number of the adversary's signed steps, and the size of one as a share of the radius.
    fan_out: whether convolutions are drawn by fan-out (`fan_out_init`) instead of as each
    architecture has it.
    """

    name: str
    architecture: str
    recipe: Recipe
    augmentation: str = "crop_flip"
    normalization: Literal["none", "data", "centered"] = "none"
    kept: tuple[int, ...] = ()
    held_out: int = 0
    radius: float = 0.0
    fan_out: bool = False
    climb: tuple[int, float] = (7, 0.25)

    def resolved(self) -> dict[str, Any]:
        """All that decides the weights, as JSON values (the name does not)."""
        architecture = ARCHITECTURES.make(self.architecture)
        fields = {**dataclasses.asdict(self), "recipe": self.recipe.resolved()}
        del fields["name"]
        for late in ("radius", "fan_out", "climb"):  # younger than some kept surrogates
            if fields[late] == getattr(SurrogateRecipe, late):
                del fields[late]
        version = 3 if self.augmentation == "affine_shift" else 2
        return {**fields, "architecture": architecture.resolved(), "version": version}

    def build(self, images: Images, seed: int, device: torch.device) -> Network:
        """One untrained network, on the device."""
        kind = ARCHITECTURES.make(self.architecture)
        by = moments(images.pixels) if self.normalization == "data" else None
        if self.normalization == "centered":
            by = (0.5,), (1.0,)
        network = untrained(kind, images, seed, device, by)
        if self.fan_out:
            fan_out_init(network, seed)
        return network

    def shell(self, images: Images, device: torch.device) -> nn.Module:
        """What `train_surrogate` returns, with other weights: to load kept ones into."""
        networks = [self.build(images, 0, device) for _ in self.kept or (0,)]
        return nn.ModuleList(networks) if self.kept else networks[0]


def tap40(architecture: str, epochs: int = 40) -> SurrogateRecipe:
    """The surrogate of TAP's code; its rate falls after 14, 24 and 35 of 40 epochs.

    Images are shifted after they are normalized: what is shifted in is the mean color.
    Convolutions start from torchvision's rule, as in that code.
    """
    recipe = Recipe(
        epochs=epochs,
        nesterov=True,
        schedule="step",
        milestones=tuple(int(epochs // d) for d in (2.667, 1.6, 1.142)),
    )
    return SurrogateRecipe("tap40", architecture, recipe, "affine_shift", "data", fan_out=True)


def delusive150(architecture: str, epochs: int = 150) -> SurrogateRecipe:
    """The surrogate of the hypocritical perturbations; its rate falls at 100 and 125 of 150 epochs.

    The epoch with the best accuracy on 1,000 training images that were held out.
    """
    falls = (2 * epochs // 3, 5 * epochs // 6)
    recipe = Recipe(epochs=epochs, schedule="step", milestones=falls)
    return SurrogateRecipe("delusive150", architecture, recipe, "crop_flip", held_out=1000)


def sep120(architecture: str, epochs: int, count: int) -> SurrogateRecipe:
    """The surrogates of SEP: `count` equidistant epochs of one training, the last included.

    The official rate rises over the first epoch from 0.001 to 0.1; here that epoch has the mean.
    """
    kept = tuple(i * epochs // count - 1 for i in range(1, count + 1))
    recipe = Recipe(
        epochs=epochs,
        schedule="step",
        milestones=(epochs * 75 // 120, epochs * 90 // 120),
        warmup_epochs=2,
        warmup_lr=0.001,
    )
    return SurrogateRecipe("sep120", architecture, recipe, "crop_flip", "data", kept)


def normalized_by(network: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean and sd of each channel by which a network normalizes its input, (1, C, 1, 1).

    The numbers 0 and 1, of no dimension, if it does not.
    """
    from raygrid.architectures.networks.network import Normalize

    layer = getattr(network, "normalize", None)
    if not isinstance(layer, Normalize):
        return torch.tensor(0.0), torch.tensor(1.0)
    buffers = dict(layer.named_buffers())
    return buffers["mean"], buffers["std"]


SurrogateAugmentation: TypeAlias = "Callable[[Tensor, torch.Generator, Tensor | None], Tensor]"
"""Of images (n, C, H, W) with their draws; bool (n,): which are mirrored, None: drawn as well."""


def augmentation(name: str, network: nn.Module) -> SurrogateAugmentation:
    """What the images of a surrogate's training go through before `network` sees them.

    `affine_shift`, the standard augmentation of a dataset (see `standard`), or contrastive views of
    a strength (see `Views.of_strength`): `views:<strength>`, or `upright:<strength>` for none
    mirrored.
    """
    kind, colon, strength = name.partition(":")
    if colon:
        return Views.of_strength(float(strength), flip=kind == "views")
    fill = normalized_by(network)[0]

    def shift(x: Tensor, rng: torch.Generator, mirrored: Tensor | None = None) -> Tensor:
        return affine_shift(x, rng, fill, mirrored)

    def usual(x: Tensor, rng: torch.Generator, mirrored: Tensor | None = None) -> Tensor:
        made = standard(name, x.shape[-1])
        return x if made is None else made(x, rng, mirrored)

    return shift if name == "affine_shift" else usual


ACCURACY_FLOORS = {("cifar10", "resnet18"): 0.93}
"""Clean test accuracy, by dataset and architecture, that published attacks count on."""


def shortfall(dataset: str, architecture: str, reached: float) -> str | None:
    """What to say of a surrogate that is worse than those of the papers, None if it is not."""
    floor = ACCURACY_FLOORS.get((dataset, architecture), 0.0)
    if reached >= floor:
        return None
    return f"surrogate below {floor:.0%}: {architecture} reaches {reached:.1%} on {dataset}"


def no_surrogate(attack: str, architectures: Sequence[str], combination: Combination) -> str | None:
    """Why an attack's surrogates cannot be made for such data, or None."""
    reasons = (ARCHITECTURES.make(name).skip(combination) for name in architectures)
    reason = next(filter(None, reasons), None)
    return f"no surrogate for {attack}: {reason}" if reason else None
