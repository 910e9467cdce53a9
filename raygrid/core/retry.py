"""Trying again what may succeed later: the one way, with pauses that its user states."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from raygrid.core.errors import StoreError

T = TypeVar("T")
log = logging.getLogger(__name__)
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
"""Seconds between tries of what must not be lost: a store that is away for two minutes."""


def retried(
    action: Callable[[], T],
    pauses: Iterable[float],
    passes: Callable[[Exception], bool],
    before: Callable[[Exception, float], None] = lambda error, pause: None,
) -> T:
    """Do something, again after each pause as long as its errors may pass; then once more.

    pauses: seconds between the tries. passes: whether an error may not come again; another one is
    raised at once. before: called with each error that is tried again, and the pause that follows.
    The last try's error is raised as it is.
    """
    for pause in pauses:
        try:
            return action()
        except Exception as error:
            if not passes(error):
                raise
            before(error, pause)
            time.sleep(pause)
    return action()


def patiently(action: Callable[[], T]) -> T:
    """Do what must succeed: again after a while, as long as a StoreError may pass."""

    def passes(error: Exception) -> bool:
        return isinstance(error, StoreError) and error.passing

    def tell(error: Exception, pause: float) -> None:
        log.warning("%s; trying again in %.0f s", error, pause)

    return retried(action, RETRY_SECONDS, passes, tell)


def until(seconds: float, pause: float) -> Iterator[float]:
    """Equal pauses for so long, by the clock."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield pause
