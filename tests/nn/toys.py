"""What the tests of diffusion models share."""

from __future__ import annotations

import torch

from raygrid.core.seeds import Stream

CPU = torch.device("cpu")


def rng(seed: int = 0) -> torch.Generator:
    return Stream("test", (seed,)).generator()
