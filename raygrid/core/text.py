"""Numbers as people read them."""

from __future__ import annotations


def clock(seconds: float) -> str:
    """A duration as a person reads it: 45 s, 3:20, 2:05:00."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
