"""Which runs of trials get the picture of their poison: all of a small grid, one of a large one."""

from __future__ import annotations

import logging
from pathlib import Path

from raygrid.tracking.journal import picture_of

log = logging.getLogger(__name__)
MOST_PICTURED_TRIALS = 1000
"""Trials of a grid that each get a picture, of about 60 KB; 10,000 would be 600 MB of copies."""
PICTURE_TAG = "raygrid.picture"


class SharedPictures:
    """The pictures of poisons for runs: a file, or in a large grid where another run has it.

    out: the run folder, which has the pictures themselves.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._shown: dict[str, str] = {}  # poison -> address of its picture at a run
        self._said: set[str] = set()

    def of(self, poison: str | None, trials: int) -> tuple[Path | None, str]:
        """The picture to log at a trial of this poison, or the address of one that was logged.

        trials: how many the grid has.
        """
        file = picture_of(self.out, poison or "")
        if not poison or not file.is_file():
            return None, ""
        if trials > MOST_PICTURED_TRIALS and poison in self._shown:
            return None, self._shown[poison]
        return file, ""

    def keep(self, poison: str | None, address: str) -> None:
        """Remember where the picture of a poison is."""
        if poison:
            self._shown.setdefault(poison, address)

    def explain(self, grid: str, trials: int) -> None:
        """Say once of a large grid what becomes of its pictures."""
        if trials > MOST_PICTURED_TRIALS and grid not in self._said:
            self._said.add(grid)
            log.warning(
                "MLflow: %s has %s trials, over %s: a picture of each poison is at one of them, "
                "the others name it in the tag %s",
                *(grid, f"{trials:,}", f"{MOST_PICTURED_TRIALS:,}", PICTURE_TAG),
            )
