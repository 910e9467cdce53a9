"""Numbers as people read them."""

from __future__ import annotations

DAY, YEAR = 24 * 3600, 365.25 * 24 * 3600  # seconds


def clock(seconds: float) -> str:
    """A duration as a person reads it: 45 s, 3:20, 2:05:00, 3.5 days, 7.3 years."""
    whole = round(seconds)
    if whole >= YEAR:
        return f"{whole / YEAR:.1f} years"
    if whole >= 2 * DAY:
        return f"{whole / DAY:.1f} days"
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
