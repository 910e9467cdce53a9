"""Li et al. 2025 (COIN): their code."""

from __future__ import annotations

import torch

from raygrid.defenses import DEFENSES
from tests.settings.dune import TRAINING
from tests.settings.rules import PrintedRow, Rule, defense, words

EDGES = {"scipy": "wrapped with period side - 1"}


def storage(row: PrintedRow) -> str:
    """What becomes of values a little below a level."""
    x = torch.full((1, 3, 8, 8), 9.9 / 255)
    made, _ = DEFENSES.make("coin").augment(x, torch.zeros(1), torch.Generator())
    levels = (255 * made).round(decimals=3).unique().tolist()
    return "truncated" if levels == [9.0] else str(levels)


RULES = (
    Rule(r"code/coin/alpha", defense("reach")),
    Rule(r"code/coin/border", words(defense("edge"), EDGES)),
    Rule(r"code/coin/storage", storage),
    *TRAINING,
)
