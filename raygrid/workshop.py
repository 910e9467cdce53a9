"""What a method works with when it fits something to images."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from raygrid.seeds import Stream


@dataclass(frozen=True)
class Workshop:
    """Randomness, and where to compute."""

    stream: Stream
    device: torch.device

    def part(self, name: str) -> Workshop:
        """For one step of the work, with draws of its own."""
        return Workshop(self.stream.child(name), self.device)
