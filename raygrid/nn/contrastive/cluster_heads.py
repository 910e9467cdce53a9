"""Heads that predict pseudo-labels, which `pseudo_labels` finds."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ClusterHeads(nn.Module):
    """A linear head on features (n, width) for each labeling; labels: int64 (N, labelings)."""

    def __init__(self, labels: Tensor, width: int) -> None:
        super().__init__()
        self.register_buffer("labels", labels, persistent=False)
        counts = (labels.amax(0) + 1).tolist()
        self.heads = nn.ModuleList([nn.Linear(width, count) for count in counts])

    def forward(self, features: Tensor, index: Tensor) -> Tensor:
        """Cross-entropy of the clusters of images number `index` (n,), mean over the heads."""
        wanted: Tensor = self.labels[index]  # type: ignore[index]
        losses = [
            functional.cross_entropy(head(features), y)
            for head, y in zip(self.heads, wanted.unbind(1), strict=True)
        ]
        return torch.stack(losses).mean()
