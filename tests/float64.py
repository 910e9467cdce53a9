"""Networks that compute in float64, so that rounding does not grow over a training's steps."""

from __future__ import annotations

from torch import Tensor, nn

from raygrid.architectures.networks.network import Network


class _Widened(nn.Module):
    """Takes images of any precision to float64 before they are normalized."""

    def __init__(self, normalize: nn.Module) -> None:
        super().__init__()
        self.normalize = normalize

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.normalize(x.double())
        return out


def doubled(network: Network) -> Network:
    """The same network, its very parameters in float64, for images as they are."""
    network.double()
    network.normalize = _Widened(network.normalize)
    return network
