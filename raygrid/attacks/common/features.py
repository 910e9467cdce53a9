"""Where the classes of a set lie in the features of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raygrid.core.images import Images
from raygrid.core.lazy import nn, no_grad, torch

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.architectures.networks.network import Network


@no_grad
def mean_features(network: Network, images: Images, size: int, device: torch.device) -> Tensor:
    """Mean features of each class, float32 (classes, width), computed in batches of `size`.

    The images are taken as they are; a class without any has zeros.
    """
    sums = torch.zeros(images.classes, network.width, device=device)
    for rows in torch.arange(len(images)).split(size):
        features = network.features(images.floats(rows).to(device))
        members = nn.functional.one_hot(images.labels[rows], images.classes)
        sums += members.T.to(features) @ features
    counts = images.labels.bincount(minlength=images.classes).clamp(min=1)
    return sums / counts.to(sums)[:, None]
