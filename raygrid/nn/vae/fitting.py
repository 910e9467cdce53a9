"""Fitting auto-encoders to a training set and putting a set through them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from raygrid.core.errors import DataError
from raygrid.core.images import Images, to_uint8
from raygrid.core.lazy import no_grad, torch
from raygrid.core.registry import require
from raygrid.core.seeds import forked
from raygrid.nn.context import FitContext
from raygrid.nn.recipes import Recipe
from raygrid.nn.steps import Batch, Step
from raygrid.nn.trainer import Trainer
from raygrid.nn.vae.autoencoders import SHRINKS, Parts, VaeSize, misfit, rate_loss

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.nn.vae.networks import AutoEncoder

SMALL_AMPLITUDE = 0.002  # mean square of a perturbation that is small enough
_CHUNK = 256  # images a pass: part of the draws, so never a setting


@dataclass(frozen=True)
class VaeFit:
    """How an auto-encoder is fitted. limit: nats for each position of its feature map.

    The methods' settings are for 23,400 updates, 60 epochs of 50,000 images: far fewer images
    need more epochs or smaller batches.
    """

    plan: VaeSize
    limit: float
    epochs: int
    late: int = 11  # epoch, counted from 0, from which large perturbations cost
    batch_size: int = 128  # images an update
    recipe: Recipe = field(init=False)

    def __post_init__(self) -> None:
        recipe = Recipe(
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=5e-3,
            optimizer="adam",
            weight_decay=0.0,
            grad_clip=5.0,
            drop_last=True,
            precision="fp32",
        )
        object.__setattr__(self, "recipe", recipe)


def require_fit(epochs: int, batch_size: int, shrink: int) -> None:
    """Raise SpecError unless a method can fit its auto-encoders in this way."""
    require(epochs >= 1, f"epochs is {epochs}, allowed are whole numbers from 1")
    require(batch_size >= 2, f"batch_size is {batch_size}, allowed are 2 and more")
    nearest = min(SHRINKS, key=lambda allowed: abs(allowed - shrink))
    allowed = f"allowed are {', '.join(map(str, SHRINKS))}; the nearest is {nearest}"
    require(shrink in SHRINKS, f"shrink is {shrink}, {allowed}")


def fit(how: VaeFit, images: Images, fit_context: FitContext) -> AutoEncoder:
    """A network fitted to the images, in eval mode; raises DataError if they do not fit it."""
    if reason := misfit("an auto-encoder", images.shape[-1]):
        raise DataError(reason)
    with fit_context.timed("fit"):
        network, trainer = fresh_autoencoder(how, images, fit_context)
        for epoch in range(how.epochs):
            trainer.epoch(epoch)
    return network.eval()


def fresh_autoencoder(
    how: VaeFit, images: Images, fit_context: FitContext
) -> tuple[AutoEncoder, Trainer]:
    """A fresh network, and what trains it."""
    from raygrid.nn.vae.networks import AutoEncoder

    with forked(fit_context.stream.seed("init")):
        network = AutoEncoder(how.plan)
    network.to(fit_context.device)

    def step(batch: Batch) -> Step:
        parts = network(batch.x, batch.y, batch.rng)
        loss = objective(parts, batch.x, how.limit, batch.epoch >= how.late)
        return Step(loss, torch.zeros((), device=loss.device), len(batch.y))

    trainer = Trainer(network, step, images.to(fit_context.device), how.recipe, fit_context.stream)
    return network, trainer


def objective(parts: Parts, x: Tensor, limit: float, late: bool) -> Tensor:
    """Reconstruction, reconstruction with the perturbation, bounded rate, bounded amplitude."""
    loss = (parts.image - x).square().mean() + rate_loss(parts.rate, limit)
    if parts.perturbation is None:
        return loss
    sum_ = (parts.image + parts.perturbation).clamp(0, 1)
    loss = loss + (sum_ - x).square().mean()
    if late:
        loss = loss + parts.perturbation.square().mean().clamp_min(SMALL_AMPLITUDE)
    return loss


@no_grad
def in_chunks(
    network: AutoEncoder,
    x: Tensor,
    y: Tensor,
    fit_context: FitContext,
    keep: Callable[[Tensor, Parts], Tensor],
) -> Tensor:
    """What `keep` makes of the images and of their parts, chunk by chunk, on the CPU.

    x: uint8 or float32 in [0, 1] (N, 3, S, S); `keep` gets floats on the device. The latent is
    sampled here too.
    """
    kept = []
    with fit_context.timed("pass"):
        for start in range(0, len(x), _CHUNK):
            rng = fit_context.stream.generator(start)
            part = x[start : start + _CHUNK].to(fit_context.device)
            floats = part.float().div_(255) if part.dtype == torch.uint8 else part
            labels = y[start : start + _CHUNK].to(fit_context.device)
            kept.append(keep(floats, network(floats, labels, rng)).cpu())
    return torch.cat(kept)


def reconstructed(x: Tensor, parts: Parts) -> Tensor:
    """The reconstructed image, for `in_chunks`."""
    return parts.image


def perturbation(x: Tensor, parts: Parts) -> Tensor:
    """What the network takes for the perturbation, float32, unbounded, for `in_chunks`."""
    assert parts.perturbation is not None, "the network has no perturbation branch"
    return parts.perturbation


def cleaned(x: Tensor, parts: Parts) -> Tensor:
    """The input less its perturbation, in [0, 1], for `in_chunks`."""
    return (x - perturbation(x, parts)).clamp_(0, 1)


def marked(x: Tensor, parts: Parts) -> Tensor:
    """The input plus its perturbation, uint8, for `in_chunks`."""
    return to_uint8(x + perturbation(x, parts))
