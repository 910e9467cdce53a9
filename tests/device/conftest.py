"""What the tests of devices share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import torch

from raygrid.core.images import Images

if TYPE_CHECKING:
    from tests.device.pretend import Log


@pytest.fixture
def log() -> Iterator[Log]:
    """The pretend device is in use; what it is asked for is counted."""
    from tests.device.pretend import watched  # those of real cards do without it

    with watched() as counted:
        yield counted


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images went to the device to stay there, each time."""
    counts: list[int] = []
    move = Images.to

    def noted(images: Images, device: torch.device | str) -> Images:
        if torch.device(device).type not in ("cpu", "meta"):
            counts.append(len(images))
        return move(images, device)

    monkeypatch.setattr(Images, "to", noted)
    return counts
