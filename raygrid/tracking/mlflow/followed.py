"""What the files of a run say of its grids and of trials without rows, until MLflow was told."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from raygrid.literature.printed import Printed
from raygrid.storage.results import Json
from raygrid.tracking.mlflow.facts import Control, Shown
from raygrid.tracking.names import names_of
from raygrid.tracking.published import printed_again, published_of


@dataclass
class UnfinishedTrial:
    """A trial without a row: what it is, and epochs that MLflow has not been told."""

    spec: str
    resolved: Json
    start: float
    epochs: list[dict[str, float]] = field(default_factory=list)
    told: bool = False

    @property
    def waits(self) -> bool:
        return bool(self.epochs) or not self.told


@dataclass
class FollowedGrid:
    """A grid of the folder. ended: status and time, None while it goes on."""

    key: str
    name: str
    specs: list[str]
    files: list[Path] = field(default_factory=list)
    ended: tuple[str, float] | None = None
    parent: str = ""
    published: dict[str, Printed] | None = None  # None: nobody has looked yet

    def shown(self, spec: str, control: Control | None) -> Shown:
        """What stands beside a trial of the grid."""
        if self.published is None:
            self.published = published_of(self.specs)
        return Shown(self.names.get(spec, spec), control, self.published.get(spec))

    @cached_property
    def names(self) -> dict[str, str]:
        """Specs to what the trials are called."""
        return names_of(self.specs)


def followed(key: str, line: Json) -> FollowedGrid:
    """A grid as the line says that it wrote when it started."""
    grid = FollowedGrid(key, line["name"], line["specs"])
    if "printed" in line:  # a grid of an older version has other fields
        grid.published = {spec: printed_again(number) for spec, number in line["printed"].items()}
    return grid
