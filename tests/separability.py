"""Whether a linear model can tell classes apart by the perturbation alone, on held-out samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def held_out_accuracy(clean: Tensor, poisoned: Tensor, labels: Tensor) -> float:
    """Fit logistic regression on one half of the perturbations and score it on the other.

    clean, poisoned: uint8 (n, C, H, W), n from 1,000. The accuracy on the fitted half would say
    nothing: with fewer samples than values even independent noise is separated perfectly.
    """
    delta = (poisoned.short() - clean.short()).flatten(1).float()
    delta = (delta - delta.min()) / (delta.max() - delta.min()).clamp_min(1)
    order = torch.randperm(len(delta), generator=torch.Generator().manual_seed(0))
    fit, score = order[: len(order) // 2], order[len(order) // 2 :]
    classes = int(labels.max()) + 1
    weight = torch.zeros(delta.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], lr=0.5, max_iter=60)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(delta[fit] @ weight + bias, labels[fit])
        loss.backward()
        return loss

    optimizer.step(closure)
    predicted = (delta[score] @ weight + bias).argmax(1)
    return float((predicted == labels[score]).float().mean())
