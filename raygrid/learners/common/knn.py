"""The kNN classifier that scores an encoder after every epoch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from raygrid.architectures.networks.network import Network


class KnnClassifier(nn.Module):
    """Votes of the nearest labeled images by cosine of features, as class scores.

    Each of the `neighbors` nearest votes for its class with exp(cosine / temperature) (Wu et al.
    2018). Scores (n, classes) are the logarithms of the shares of votes, at least log(1e-6). With
    fewer labeled images than `neighbors` all of them vote.
    """

    def __init__(
        self, network: Network, bank: Tensor, labels: Tensor, classes: int, neighbors: int
    ) -> None:
        super().__init__()
        self.network = network
        self.bank = functional.normalize(bank, dim=1)
        self.labels = labels
        self.classes = classes
        self.neighbors = min(neighbors, len(bank))
        self.temperature = 0.1

    def forward(self, x: Tensor) -> Tensor:
        features = functional.normalize(self.network.features(x).float(), dim=1)
        with torch.autocast(x.device.type, enabled=False):
            return self.vote(features @ self.bank.T)

    def vote(self, cosine: Tensor) -> Tensor:
        """Scores (n, classes) from cosines (n, bank)."""
        near, which = cosine.topk(self.neighbors, dim=1)
        weight = ((near - near[:, :1]) / self.temperature).exp()  # the shift cancels in the shares
        votes = cosine.new_zeros(len(cosine), self.classes)
        votes.scatter_add_(1, self.labels[which], weight)
        return (votes / votes.sum(1, keepdim=True)).clamp_min(1e-6).log()

    def spread(self) -> float:
        """Spread of the bank's unit features: mean standard deviation times sqrt(width).

        About 1 for features that use all directions, 0 where the encoder has collapsed.
        """
        return float(self.bank.std(0).mean()) * self.bank.shape[1] ** 0.5
