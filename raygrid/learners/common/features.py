"""Features of a network over whole sets of images, and the sign that they have collapsed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raygrid.core.images import Images
from raygrid.core.lazy import nn, no_grad, torch
from raygrid.nn.steps import autocast

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.architectures.networks.network import Network

FEATURE_CHUNK = 1000


def features_of(
    network: Network,
    images: Images,
    precision: str,
    view: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Features float32 (N, width) of `view(images)` in eval mode; the mode is restored."""
    return answers_of(network, network.features, images, precision, view)


@no_grad
def answers_of(
    module: nn.Module,
    ask: Callable[[Tensor], Tensor],
    images: Images,
    precision: str,
    view: Callable[[Tensor], Tensor],
) -> Tensor:
    """What `ask`, a part of the module, says of `view(images)` in eval mode, float32 (N, ...).

    The module's mode is restored.
    """
    training = module.training
    module.eval()
    parts = []
    for start in range(0, len(images), FEATURE_CHUNK):
        x = view(images.floats(slice(start, start + FEATURE_CHUNK)))
        with autocast(precision, x.device):
            parts.append(ask(x).float())
    module.train(training)
    return torch.cat(parts)


@dataclass
class CollapseAlarm:
    """Rings once the spread of features was below 0.1 in three evaluations in a row."""

    low: int = 0

    def hear(self, spread: float) -> bool:
        self.low = self.low + 1 if spread < 0.1 else 0
        return self.low >= 3
