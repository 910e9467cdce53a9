"""What a method works with when it fits something to images."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from raygrid.core.lazy import torch
from raygrid.core.seeds import Stream


@dataclass(frozen=True)
class FitContext:
    """Randomness, where to compute, and a log of the seconds that kinds of work took.

    prior: weights of the network that the method starts from, if it asked for one.
    marks: what a reader of the results has to know, filled by the method.
    augmentation: the standard one of the images' dataset, a name that `nn.augment.standard` knows.
    """

    stream: Stream
    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict, compare=False)
    prior: Mapping[str, torch.Tensor] = field(default_factory=dict, compare=False)
    marks: list[str] = field(default_factory=list, compare=False)
    augmentation: str = "crop_flip"

    def part(self, name: str) -> FitContext:
        """The context of one step of the work, with draws of its own."""
        return replace(self, stream=self.stream.child(name))

    @contextmanager
    def timed(self, work: str) -> Iterator[None]:
        """Adds what happens inside to the log."""
        started = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[work] = self.seconds.get(work, 0.0) + time.perf_counter() - started
