"""Which one of several drivers of a grid this is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from raygrid.core.errors import SpecError


@dataclass(frozen=True)
class Driver:
    """One of several drivers of a grid. number: from 0; count: how many there are."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Driver:
        """The driver that a text names, e.g. `0/4`; raises SpecError."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if found is None or not int(found[1]) < int(found[2]):
            raise SpecError(
                f"driver is {text!r}, allowed are its number, from 0, and how many there are: "
                "0/4, 1/4, 2/4, 3/4"
            )
        return cls(int(found[1]), int(found[2]))
