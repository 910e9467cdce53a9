"""A network as its victim's defense shows it the images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raygrid.attacks.common.adaptive import Transform


class Seen(nn.Module):
    """A network that sees images only through a transform, as a defended victim does.

    rng: of the transform's draws; whoever uses the network sets it.
    """

    def __init__(self, network: nn.Module, transform: Transform) -> None:
        super().__init__()
        self.network = network
        self.transform = transform
        self.rng = torch.Generator()

    def forward(self, x: Tensor) -> Tensor:
        # A victim's images are changed before its network sees them in lower precision.
        with torch.autocast(x.device.type, enabled=False):
            shown = self.transform(x, self.rng)
        out: Tensor = self.network(shown)
        return out
