"""What surrounds a trial: its device, who is told of its epochs, where its state is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from raygrid.core.device import Meter
from raygrid.core.images import Images, Poison
from raygrid.core.lazy import torch
from raygrid.core.options import Options
from raygrid.storage.store import Bundle
from raygrid.trials.artifacts import Artifact

Fetch = Callable[[Artifact], Bundle]


Report = Callable[[dict[str, float]], None]


class Checkpoint:
    """Where a trial keeps its state between epochs. This one keeps nothing."""

    def save(self, state: dict[str, Any]) -> None:
        """Keep the state after an epoch, in place of the one before."""

    def load(self) -> dict[str, Any] | None:
        """The state of the last epoch that was kept, or None."""
        return None


@dataclass
class TrialContext:
    """What surrounds a trial: where it computes, where it reports, how it is told to resume.

    options: of the run; leave: where each kind of what the trained model leaves goes; examples:
    is shown the key of the poison, the clean training set and the poison.
    raise_device: let through what is the device's fault (`core.device_errors`), so that the caller
    can give more memory or another process.
    meter: of what the trial takes of its device, by default one that has all of it.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    report: Report = lambda metrics: None
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    commit: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    options: Options = Options()
    leave: Callable[[str, Bundle], None] = lambda kind, bundle: None
    examples: Callable[[str, Images, Poison], None] = lambda key, clean, poison: None
    raise_device: bool = False
    meter: Meter | None = None
