"""Networks before and after a training: fresh ones on the device, and frozen ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from raygrid.architectures.base import Architecture
from raygrid.core.images import Images
from raygrid.core.lazy import nn, torch

if TYPE_CHECKING:
    from raygrid.architectures.networks.network import Network

M = TypeVar("M", bound="nn.Module")


def to_device(model: M, device: torch.device | str, convolutional: bool) -> M:
    """Move a network to the device, in channels_last if it is convolutional."""
    if convolutional:
        return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.to(device)


def untrained(
    kind: Architecture,
    images: Images,
    seed: int,
    device: torch.device,
    moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
) -> Network:
    """A fresh network for images of this size and this number of classes, on the device.

    moments: mean and sd of each channel, by which it normalizes its input.
    """
    network = kind.build(images.classes, images.shape[-1], seed)
    if moments is not None:
        network.normalize_by(*moments)
    kind.adapt(network, images, seed)
    return to_device(network, device, kind.convolutional)


def freeze(network: M) -> M:
    """Eval mode, no gradients for the parameters."""
    network.eval()
    network.requires_grad_(False)
    return network
