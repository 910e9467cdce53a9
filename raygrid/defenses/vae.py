"""Purification by an auto-encoder whose rate is bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from raygrid.core.images import Images, to_uint8
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, Combination, require
from raygrid.defenses.base import DEFENSES, Defense, FitContext
from raygrid.nn.vae import (
    VaeFit,
    VaeSize,
    fit,
    in_chunks,
    misfit,
    reconstructed,
    relative_cost,
    require_fit,
)


@DEFENSES.register("vae")
@dataclass(frozen=True, kw_only=True)
class Vae(Defense):
    """Images become their reconstructions by a VAE that was fitted to them.

    Mean squared error + weight * max(rate, limit), in nats for each position of the feature map
    (half the image side); weight 0.01, or 0.5 for limits up to 0.99. The latent is sampled in
    training and afterwards. Labels are not used.
    """

    card = Card(
        paper="Yu et al. 2024 (D-VAE), section 3",
        code="yuyi-sd/D-VAE@9d62e4c (configs/models/resnet.py)",
        needs="nothing but the training set",
        cost="43 epochs of standard training for 60 epochs at 32 pixels; on a GPU the host's draws "
        "of the latent take longer than that",
        notes="the paper shows curves over the limit only. A limit of 1 is 256 nats for a "
        "32-pixel image. The code has the network but no script that trains it: losses and "
        "training are those of dvae without its perturbation. Its setting for 224 pixels has "
        "features of stride 4 with 256 channels, here they are those of dvae's first stage, stride "
        "8 with 512; its plain auto-encoders are not in the code, only their settings",
    )
    quick: ClassVar[Mapping[str, Scalar]] = {
        "epochs": 8,
        "batch_size": 32,
        "shrink": 4,
    }
    holds: ClassVar[float] = 1.0
    tiny: ClassVar[Mapping[str, Scalar]] = {"epochs": 1, "shrink": 4}
    effort: ClassVar[frozenset[str]] = frozenset({"batch_size", "epochs", "shrink"})

    limit: float = 1.0  # nats for each position
    width: int = 0  # channels of a plain auto-encoder's code; 0: the variational one
    epochs: int = 60
    batch_size: int = 128  # images an update
    shrink: int = 1  # divides the network's channels, for small machines

    def __post_init__(self) -> None:
        require(self.limit >= 0, f"limit is {self.limit}, allowed are numbers from 0")
        require(0 <= self.width <= 512, f"width is {self.width}, allowed are 0 to 512")
        require_fit(self.epochs, self.batch_size, self.shrink)

    @property
    def purify_cost(self) -> float:
        return 43 / 60 * self.epochs * relative_cost(self.shrink)

    def purify_draws(self, side: int) -> float:
        return float(self.epochs * self._plan(side).drawn)

    def _plan(self, side: int) -> VaeSize:
        return VaeSize.reconstructing(side, self.width, self.shrink)

    def purify(self, images: Images, fit_context: FitContext) -> Images:
        plan = self._plan(images.shape[-1])
        how = VaeFit(plan, self.limit, self.epochs, batch_size=self.batch_size)
        network = fit(how, images, fit_context.part("fit"))
        after = fit_context.part("reconstruct")
        made = in_chunks(network, images.pixels, images.labels, after, reconstructed)
        return images.with_pixels(to_uint8(made))

    def skip(self, combination: Combination) -> str | None:
        return misfit(self.id, combination.image_size) or super().skip(combination)
