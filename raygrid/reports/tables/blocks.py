"""Wide panels: their columns in blocks that stand one below another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")


def blocks(items: Sequence[T], most: int) -> list[list[T]]:
    """Items in as few blocks of at most `most` as suffice, whose sizes differ by at most one."""
    return evenly(items, math.ceil(len(items) / most))


def blocks_within(widths: Sequence[float], room: float) -> list[list[int]]:
    """The numbers of columns in as few blocks as suffice, none wider than `room`.

    A column that is wider than that stands alone. Blocks have about as many columns each where
    these fit.
    """
    found: list[list[int]] = []
    for number, width in enumerate(widths):
        if found and sum(widths[each] for each in found[-1]) + width <= room:
            found[-1].append(number)
        else:
            found.append([number])
    even = evenly(range(len(widths)), len(found))
    fits = all(sum(widths[each] for each in block) <= room for block in even)
    return even if fits else found


def evenly(items: Sequence[T], count: int) -> list[list[T]]:
    """Items in so many blocks, in their order; the first ones may have one more."""
    size, more = divmod(len(items), max(count, 1))
    ends = [number * size + min(number, more) for number in range(count + 1)]
    return [list(items[start:end]) for start, end in pairwise(ends)]
