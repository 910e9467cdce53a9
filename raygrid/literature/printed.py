"""A printed number as it stands beside a measured one, and what sets the two apart.

Processes that go without torch read it too, unlike `lookup`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Apart:
    """What sets a printed number apart from what it stands beside; false where nothing does.

    protocol: the paper, where its protocol is another one. settings: those that it has of the same
    protocol, or the machine of a cost. methods: its own ones of methods that go by the same name
    only. data: other data, be it those of the number or those that it stands beside.
    """

    protocol: str = ""
    settings: str = ""
    methods: tuple[str, ...] = ()
    data: str = ""

    def __bool__(self) -> bool:
        return self != Apart()

    def __str__(self) -> str:
        """As in the brackets of a table: `apbench`, `dvae with its own epochs, em_remrepo`."""
        recipe = " with ".join(filter(None, (self.protocol, self.settings)))
        return ", ".join(filter(None, (recipe, *self.methods, self.data)))

    def prose(self) -> str:
        """The same where no heading says what it is: `protocol of apbench`."""
        return f"protocol of {self}" if self.protocol else str(self)

    def with_data(self, said: str) -> Apart:
        """The same, and other data."""
        return replace(self, data=", ".join(filter(None, (self.data, said))))


@dataclass(frozen=True)
class Printed:
    """A paper's number beside a measured one. Fractions.

    source: paper and tables. suspect: whether it looks wrong in the paper. notes: what has to be
    known of it, remark by remark. contradicting: other papers' numbers, 5 points away or more.
    differs: whether the measured one is further from it than noise explains; only of own numbers.
    """

    value: float
    source: str
    apart: Apart = Apart()
    std: float | None = None
    suspect: bool = False
    notes: tuple[str, ...] = ()
    contradicting: tuple[str, ...] = ()
    differs: bool = False

    @property
    def own(self) -> bool:
        """Whether it was made as the measured one: protocol, methods and data."""
        return not self.apart

    def said(self) -> str:
        """Where it stands, what sets it apart, numbers that contradict it and what to know."""
        against = f"against {' and '.join(self.contradicting)}" if self.contradicting else ""
        return "; ".join(filter(None, (self.source, self.apart.prose(), against, *self.notes)))


def flat(printed: Printed | None) -> dict[str, Any]:
    """The number as columns of a file, which are there where none is printed too."""
    known = printed or Printed(0.0, "")
    return {
        "published": printed and known.value,
        "published_std": known.std,
        "source": printed and known.source,
        "own": printed is not None and known.own,
        "apart": str(known.apart),
        "suspect": known.suspect,
        "contradicting": list(known.contradicting),
        "differs": known.differs,
        "published_note": "; ".join(known.notes),
    }
