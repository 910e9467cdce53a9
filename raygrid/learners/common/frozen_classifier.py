"""A new head on an extractor that stays as it is."""

from __future__ import annotations

from torch import Tensor, nn

from raygrid.architectures.networks.network import Network


class FrozenClassifier(nn.Module):
    """An extractor and a head; takes images (n, C, H, W) or features (n, width)."""

    def __init__(self, network: Network, head: nn.Linear) -> None:
        super().__init__()
        self.network = network
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        features = x if x.dim() == 2 else self.network.features(x).float()
        out: Tensor = self.head(features)
        return out

    def train(self, mode: bool = True) -> FrozenClassifier:
        """The head's mode; the extractor stays in eval mode."""
        super().train(mode)
        self.network.eval()
        return self
