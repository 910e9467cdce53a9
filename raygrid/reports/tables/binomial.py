"""k of n: the benchmark's standard error, Wilson's interval, the exact test of pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping

from raygrid.reports.tables.cells import wilson as wilson


def paper_error(share: float, n: int) -> float:
    """The standard error that Schwarzschild et al. print with a success rate of n trials.

    sqrt(p (1 - p) / n); that of p = 1/2 where fewer than 5 trials, or 5, stand on one side.
    """
    near = min(share, 1 - share) <= 5 / n + 1e-12
    return math.sqrt(0.25 / n) if near else math.sqrt(share * (1 - share) / n)


def mcnemar(ours: Mapping[int, float], control: Mapping[int, float]) -> tuple[int, int, float]:
    """Pairs with success on one side alone (ours, control), and the exact two-sided p.

    Values are 0 or 1 by set-up; only set-ups that both have count.
    """
    both = ours.keys() & control.keys()
    gained = sum(ours[s] > control[s] for s in both)
    lost = sum(ours[s] < control[s] for s in both)
    n, few = gained + lost, min(gained, lost)
    tail = sum(math.comb(n, i) for i in range(few + 1)) / 2**n
    return gained, lost, min(1.0, 2 * tail)
