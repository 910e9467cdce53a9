"""Processes that heed signals as if a terminal had started them."""

from __future__ import annotations

import signal


def heed_signals() -> None:
    """To be called in a process before it begins: what `nohup` and `&` start ignores some."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
