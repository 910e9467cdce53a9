"""How far draws are from the distribution that they should have."""

from __future__ import annotations

import torch
from torch import Tensor


def distance(values: Tensor, low: float = 0.0, high: float = 1.0) -> float:
    """The largest difference between the distribution functions of n values and of U(low, high).

    One sample in a thousand is above 1.95 / sqrt(n).
    """
    there = ((values.double().flatten().sort().values - low) / (high - low)).clamp(0, 1)
    steps = torch.arange(len(there) + 1, dtype=torch.float64) / len(there)
    return float(torch.maximum(steps[1:] - there, there - steps[:-1]).max())
