"""D-VAE: purification by disentangling images and class-wise perturbations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.core.images import Images, Quant, to_uint8
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, Combination, require
from raygrid.defenses.base import DEFENSES, Defense, FitContext
from raygrid.nn.vae import (
    LatentTable,
    VaeFit,
    VaeSize,
    cleaned,
    fit,
    in_chunks,
    misfit,
    reconstructed,
    relative_cost,
    require_fit,
)

if TYPE_CHECKING:
    from raygrid.nn.vae.networks import AutoEncoder


_EM = "em_remrepo(decay_every=1200, step=0.25, steps=7, train_steps=3000)"


@DEFENSES.register("dvae")
@dataclass(frozen=True, kw_only=True)
class DVae(Defense):
    """Two fitted D-VAEs: the first takes its perturbation off, the second reconstructs.

    A D-VAE reconstructs x as an image from a rate-bounded latent z, plus a perturbation decoded
    from z + u[label]. Stage 1, limit1: x1 = Q(x - p(x)). Stage 2, fitted to x1 with limit2:
    x2 = x1 - p(x1), result Q(image(x2)). Q clips to uint8 and rounds, or truncates (`quant`); x2
    stays in float.
    """

    card = Card(
        paper="Yu et al. 2024 (D-VAE), section 4",
        code="yuyi-sd/D-VAE@9d62e4c (main_vae_disentangle.py)",
        published={
            "cifar10/clean/dvae/resnet18/supervised/dvae/0": 0.9329,
            "cifar10/em_remrepo/dvae/resnet18/supervised/dvae/0": 0.9142,
            "cifar10/rem/dvae/resnet18/supervised/dvae/0": 0.8638,
            "cifar10/lsp/dvae/resnet18/supervised/dvae/0": 0.9120,
            "cifar10/ops/dvae/resnet18/supervised/dvae/0": 0.8895,
            f"imagenet100/{_EM}/dvae(epochs=20, limit1=1.5)/resnet18/supervised/dvae/0": 0.7480,
            "cifar10/lsp/dvae(first=false)/resnet18/supervised/dvae/0": 0.6676,
            "cifar10/lsp/dvae(subtract=false)/resnet18/supervised/dvae/0": 0.9063,
        },
        needs="labels, also under learners that do not use them",
        cost="93 epochs of standard training for twice 60 epochs at 32 pixels; on a GPU the host's "
        "draws of the latents take longer than that",
        notes="weights of the losses, the sampled latent, the map for each class and the bound on "
        "the amplitude from the 12th epoch on are the code's, which truncates: quant=trunc. For "
        "224 pixels: limit1=1.5, epochs=20. 60 epochs of 50,000 images are 23,400 updates; for few "
        "images batch_size=32, since a few hundred updates find little",
    )
    quick: ClassVar[Mapping[str, Scalar]] = {
        "epochs": 4,
        "batch_size": 32,
        "shrink": 4,
    }
    holds: ClassVar[float] = 1.0
    tiny: ClassVar[Mapping[str, Scalar]] = {"epochs": 1, "shrink": 4}
    effort: ClassVar[frozenset[str]] = frozenset({"batch_size", "epochs", "shrink"})

    limit1: float = 1.0  # rate of stage 1, nats for each position
    limit2: float = 3.0  # rate of stage 2
    epochs: int = 60  # of each stage
    batch_size: int = 128  # images an update of either
    table: LatentTable = "spatial"  # a map or a vector for each class
    shrink: int = 1  # divides the networks' channels, for small machines
    first: bool = True  # whether there is a stage 1
    second: bool = True  # whether there is a stage 2
    subtract: bool = True  # whether stage 2 takes its perturbation off before it reconstructs
    quant: Quant = "round"  # how images are stored after each stage

    def __post_init__(self) -> None:
        for name in ("limit1", "limit2"):
            value = getattr(self, name)
            require(value >= 0, f"{name} is {value}, allowed are numbers from 0")
        require(self.first or self.second, "first and second are both false: no stage is left")
        require_fit(self.epochs, self.batch_size, self.shrink)

    @property
    def purify_cost(self) -> float:
        fits = self.first + self.second
        return fits * 46.5 / 60 * self.epochs * relative_cost(self.shrink)

    def purify_draws(self, side: int) -> float:
        # How many classes there are does not matter: their branch draws nothing.
        stages = [deep for deep, there in ((True, self.first), (False, self.second)) if there]
        return float(self.epochs * sum(self._plan(side, 1, deep).drawn for deep in stages))

    def purify(self, images: Images, fit_context: FitContext) -> Images:
        network = self.stage1(images, fit_context) if self.first else None
        return self.purify_after(network, images, fit_context)

    def stage1(self, images: Images, fit_context: FitContext) -> AutoEncoder:
        """The D-VAE of stage 1."""
        return fit(self._fit(images, self.limit1), images, fit_context.part("fit1"))

    def purify_after(
        self, network: AutoEncoder | None, images: Images, fit_context: FitContext
    ) -> Images:
        """The rest of the purification, given the D-VAE of stage 1 (None: without it)."""
        x, y = images.pixels, images.labels
        if network is not None:
            x = to_uint8(in_chunks(network, x, y, fit_context.part("stage1"), cleaned), self.quant)
        if not self.second:
            return images.with_pixels(x)
        how = self._fit(images, self.limit2, deep=False)
        network = fit(how, images.with_pixels(x), fit_context.part("fit2"))
        if self.subtract:
            x = in_chunks(network, x, y, fit_context.part("stage2"), cleaned)
        made = in_chunks(network, x, y, fit_context.part("reconstruct"), reconstructed)
        return images.with_pixels(to_uint8(made, self.quant))

    def _fit(self, images: Images, limit: float, deep: bool = True) -> VaeFit:
        plan = self._plan(images.shape[-1], images.classes, deep)
        return VaeFit(plan, limit, self.epochs, batch_size=self.batch_size)

    def _plan(self, side: int, classes: int, deep: bool) -> VaeSize:
        return VaeSize.disentangling(side, classes, self.table, deep, self.shrink)

    def skip(self, combination: Combination) -> str | None:
        return misfit(self.id, combination.image_size) or super().skip(combination)
