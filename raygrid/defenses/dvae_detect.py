"""Detection of poisoned images with D-VAE, and purification of just these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.architectures import ARCHITECTURES
from raygrid.core.images import Images, Quant, to_uint8
from raygrid.core.lazy import nn, no_grad, torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, Combination, require
from raygrid.defenses.base import DEFENSES, Defense, FitContext
from raygrid.defenses.dvae import DVae
from raygrid.nn import augment
from raygrid.nn.networks import untrained
from raygrid.nn.recipes import precision_of
from raygrid.nn.steps import Batch, Step, autocast, classify_step
from raygrid.nn.trainer import Trainer
from raygrid.nn.vae import LatentTable, Parts, in_chunks, misfit, perturbation
from raygrid.protocols import PROTOCOLS

if TYPE_CHECKING:
    from torch import Tensor


@DEFENSES.register("dvae_detect")
@dataclass(frozen=True, kw_only=True)
class DVaeDetect(Defense):
    """Replaces what it takes for poisoned by D-VAE's purified version, and nothing else.

    The perturbations that stage 1 of D-VAE finds are added to all images, clean ones too. A network
    trained on these knows the poison but not the pictures: an image of the set is flagged if the
    network gives it its label. The set is purified as a whole and flagged images are replaced, or
    the purification is fitted to the flagged images alone (`fit_on=flagged`).
    """

    card = Card(
        paper="Yu et al. 2024 (D-VAE), tables 7 and 8",
        code="yuyi-sd/D-VAE@9d62e4c (main_vae_disentangle.py)",
        published={
            "cifar10/em_remrepo@0.2/dvae_detect/resnet18/supervised/dvae/0": 0.9350,
            "cifar10/em_remrepo@0.8/dvae_detect/resnet18/supervised/dvae/0": 0.9226,
            "cifar10/lsp@0.2/dvae_detect/resnet18/supervised/dvae/0": 0.9320,
            "cifar10/lsp@0.8/dvae_detect/resnet18/supervised/dvae/0": 0.9216,
        },
        needs="labels",
        cost="D-VAE and 60 epochs of training",
        notes="the paper does not print the rule; its recall and precision fit this one, with a "
        "false-positive rate of the network's accuracy on clean images. Few images need smaller "
        "batches, and a network that fits them: what it has not learned it does not flag",
    )
    quick: ClassVar[Mapping[str, Scalar]] = {
        "epochs": 4,
        "batch_size": 32,
        "shrink": 4,
        "architecture": "small_resnet",
        "classifier_epochs": 10,
        "augmentation": "none",
    }
    holds: ClassVar[float] = 1.0
    tiny: ClassVar[Mapping[str, Scalar]] = {
        "epochs": 1,
        "shrink": 4,
        "classifier_epochs": 1,
        "architecture": "small_cnn",
    }
    effort: ClassVar[frozenset[str]] = frozenset(
        {"architecture", "batch_size", "classifier_epochs", "epochs", "shrink"}
    )
    version: ClassVar[int] = 2
    detects: ClassVar[bool] = True

    limit1: float = 1.0  # as in dvae
    limit2: float = 3.0
    epochs: int = 60
    batch_size: int = 128
    table: LatentTable = "spatial"
    shrink: int = 1
    quant: Quant = "round"
    architecture: str = "resnet18"  # of the network that tells poison
    classifier_epochs: int = 60
    augmentation: Literal["standard", "crop_flip", "crop", "none"] = "standard"  # of its training
    fit_on: Literal["all", "flagged"] = "all"  # images to which the purification is fitted

    def __post_init__(self) -> None:
        self.dvae()  # refuses its own parameters
        allowed = "allowed are whole numbers from 1"
        epochs = self.classifier_epochs
        require(epochs >= 1, f"classifier_epochs is {epochs}, {allowed}")
        ARCHITECTURES.make(self.architecture)

    @property
    def purify_cost(self) -> float:
        classifier = ARCHITECTURES.make(self.architecture).gflop / 1.11 * self.classifier_epochs
        return self.dvae().purify_cost + classifier

    def purify_draws(self, side: int) -> float:
        return self.dvae().purify_draws(side)

    def dvae(self) -> DVae:
        """The purification."""
        shared = ("limit1", "limit2", "epochs", "batch_size", "table", "shrink", "quant")
        return DVae(**{name: getattr(self, name) for name in shared})

    def purify(self, images: Images, fit_context: FitContext) -> Images:
        def marked(x: Tensor, parts: Parts) -> Tensor:
            return to_uint8(x + perturbation(x, parts), self.quant)

        network = self.dvae().stage1(images, fit_context)
        after = fit_context.part("mark")
        poisoned = in_chunks(network, images.pixels, images.labels, after, marked)
        flags = self._knows(images.with_pixels(poisoned), images, fit_context.part("classifier"))
        pixels = images.pixels.cpu().clone()
        if self.fit_on == "all":
            pixels[flags] = self.dvae().purify_after(network, images, fit_context).pixels[flags]
        elif int(flags.sum()) > 1:  # batch norm has no variance over a single image
            part = fit_context.part("flagged")
            pixels[flags] = self.dvae().purify(images.rows(flags), part).pixels
        return images.with_pixels(pixels)

    def _knows(self, poisoned: Images, images: Images, fit_context: FitContext) -> Tensor:
        """Train on the poisoned images; which of `images` get their label, bool (N,)."""
        kind = ARCHITECTURES.make(self.architecture)
        side = images.shape[-1]
        recipe = PROTOCOLS.make("dvae").recipe("supervised", "cifar10", side)
        recipe = recipe.with_(epochs=self.classifier_epochs)
        precision = precision_of(recipe, kind.convolutional)
        network = untrained(kind, images, fit_context.stream.seed("init"), fit_context.device)
        own = self.augmentation == "standard"  # the dataset's
        change = augment.standard(fit_context.augmentation if own else self.augmentation, side)

        def step(batch: Batch) -> Step:
            if change is not None:
                batch.x = change(batch.x, batch.rng)
            return classify_step(network, batch, precision)

        train = poisoned.to(fit_context.device)
        trainer = Trainer(network, step, train, recipe, fit_context.stream)
        for epoch in range(recipe.epochs):
            trainer.epoch(epoch)
        return agreeing(network.eval(), images, fit_context.device, precision)

    def skip(self, combination: Combination) -> str | None:
        return misfit(self.id, combination.image_size) or super().skip(combination)


@no_grad
def agreeing(network: nn.Module, images: Images, device: torch.device, precision: str) -> Tensor:
    """Which images the network gives their label, bool (N,) on the CPU."""
    right = []
    for pixels, labels in zip(images.pixels.split(1000), images.labels.split(1000), strict=True):
        with autocast(precision, device):
            scores = network(pixels.to(device).float().div_(255))
        right.append(scores.argmax(1).cpu() == labels.cpu())
    return torch.cat(right)
