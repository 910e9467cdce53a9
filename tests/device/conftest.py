"""What the tests of devices share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.device.pretend import Log


@pytest.fixture
def log() -> Iterator[Log]:
    """The pretend device is in use; what it is asked for is counted."""
    from tests.device.pretend import watched  # those of real cards do without it

    with watched() as counted:
        yield counted
