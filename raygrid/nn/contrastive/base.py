"""What a contrastive framework is: an encoder with heads, and a loss over two views."""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from raygrid.nn.steps import autocast

if TYPE_CHECKING:
    from raygrid.architectures.networks.network import Network

M = TypeVar("M", bound="nn.Module")


class Branch(nn.Module):
    """Images to projections: encoder features through a head, float32 (n, dim)."""

    def __init__(self, network: Network, projector: nn.Module, precision: str) -> None:
        super().__init__()
        self.network = network
        self.projector = projector
        self.precision = precision

    def forward(self, x: Tensor) -> Tensor:
        with autocast(self.precision, x.device):
            z: Tensor = self.projector(self.network.features(x))
        return z.float()

    def features(self, x: Tensor) -> Tensor:
        """The encoder's features, float32 (n, width)."""
        with autocast(self.precision, x.device):
            return self.network.features(x).float()


class Framework(nn.Module):
    """All weights, buffers and queues of one contrastive method.

    `branch.network` is the encoder that is kept. Losses are computed in float32.
    """

    def __init__(self, branch: Branch) -> None:
        super().__init__()
        self.branch = branch

    @abstractmethod
    def forward(
        self, a: Tensor, b: Tensor, y: Tensor, move: bool = True, dual: bool = False
    ) -> Tensor:
        """The loss over two views (n, C, H, W) in [0, 1] of the same n images, a scalar.

        y: int64 (n,) labels, for the methods that use them.
        move: slow weights and queue go on by one step; False holds them still.
        dual: gradients pass through the slow branch or target too. Training never does that;
        attacks may, since both views show the perturbation.
        """


def with_mlp(
    network: Network,
    precision: str,
    hidden: int = 512,
    output: int = 128,
    batch_norm: bool = False,
) -> Branch:
    """The encoder with a head of two layers, the one of SimCLR and of MoCo v2.

    Sizes as in kaiwenzha/contrastive-poisoning@628838c. Its weights are drawn from the global
    stream, as those of all heads here.
    """
    from lightly.models.modules import SimCLRProjectionHead

    head = SimCLRProjectionHead(network.width, hidden, output, batch_norm=batch_norm)
    return Branch(network, head, precision)


def moving_copy(module: M) -> M:
    """A copy without gradients, to be moved by `follow`; it keeps its own batch statistics."""
    from lightly.models.utils import deactivate_requires_grad

    slow = copy.deepcopy(module)
    deactivate_requires_grad(slow)
    return slow


def follow(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """slow <- momentum * slow + (1 - momentum) * fast, for all parameters."""
    from lightly.models.utils import update_momentum

    with torch.no_grad():
        update_momentum(fast, slow, momentum)
