"""Kim and Sandoval-Segura 2024 (RSK and FF): their code."""

from __future__ import annotations

import torch

from raygrid.defenses import DEFENSES
from raygrid.defenses.sharpen_dct import SharpenDct
from tests.settings.rules import PrintedRow, Rule, defense


def spread(row: PrintedRow) -> float:
    """How far a draw of one standard deviation moves the center of a kernel."""
    found = DEFENSES.make(row["item"])
    assert isinstance(found, SharpenDct)
    (center,) = found.kernels(torch.ones(1, 5))[:, 0].tolist()
    return round(center - found.center, 6)


RULES = (
    Rule(r"code/sharpen_dct/center", defense("center")),
    Rule(r"code/sharpen_dct/spread", spread),
    Rule(r"code/sharpen_dct/kept", defense("kept")),
)
