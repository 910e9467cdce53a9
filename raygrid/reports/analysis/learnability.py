"""Certified learnability: how well any network near a surrogate can do (Wang et al. 2025, PUE)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from raygrid.core.lazy import np
from raygrid.core.registry import require
from raygrid.core.seeds import Stream
from raygrid.nn.disturbed import disturbed
from raygrid.reports.analysis.records import EvaluationRow, Victim
from raygrid.trials.evaluate import score

ETAS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
"""Distances of the weights from the surrogate's."""
CONFIDENCE = 0.99


def learnability(
    victim: Victim, sigma: float = 0.25, draws: int = 1000, quantile: float = 0.9
) -> list[EvaluationRow]:
    """The accuracy that is certified for each distance eta, None where nothing is.

    With the probability `CONFIDENCE`, N(0, sigma^2) added to weights that are at most eta (in
    Euclidean distance) from this network's leaves a test accuracy of at most `certified_acc` with
    probability `quantile`. From the sorted accuracies of `draws` disturbed networks. Says nothing
    of networks elsewhere.
    """
    check_noise(sigma, draws, quantile)
    reached = sorted(disturbed_accuracies(victim, sigma, draws))
    plain = score(victim.network, victim.test.to(victim.device), victim.trial.defense.view).acc
    rows = []
    for eta in ETAS:
        rank = certified_rank(draws, quantile, eta, sigma)
        rows.append(
            {
                "victim": victim.name,
                "eta": eta,
                "clean_acc": plain,
                "median_acc": reached[len(reached) // 2],
                "certified_acc": None if rank is None else reached[rank],
            }
        )
    return rows


def check_noise(sigma: float, draws: int, quantile: float) -> None:
    """Raise SpecError for values of `learnability` that say nothing."""
    require(0 < sigma < math.inf, f"sigma is {sigma}, allowed are positive numbers")
    require(draws >= 1, f"draws is {draws}, allowed are whole numbers from 1")
    require(0 < quantile < 1, f"quantile is {quantile}, allowed are numbers between 0 and 1")


def disturbed_accuracies(victim: Victim, sigma: float, draws: int) -> list[float]:
    """Test accuracy under so many draws of noise on every parameter."""
    test, view = victim.test.to(victim.device), victim.trial.defense.view
    found = []
    for number in range(draws):
        rng = Stream("learnability", (victim.name, sigma)).generator(number)
        with disturbed(victim.network, sigma, rng):
            found.append(score(victim.network, test, view).acc)
    return found


def certified_rank(draws: int, quantile: float, eta: float, sigma: float) -> int | None:
    """The smallest rank (from 0) that is an upper bound of the shifted quantile; None: too few."""
    normal = NormalDist()
    shifted = normal.cdf(normal.inv_cdf(quantile) + eta / sigma)
    tail = _cumulative(draws, shifted)
    for rank in range(math.ceil(shifted * draws), draws + 1):
        if tail[rank - 1] > CONFIDENCE:
            return rank - 1
    return None


def _cumulative(n: int, p: float) -> Sequence[float]:
    """P(X <= k) of a binomial X for k = 0 to n - 1, and 0 for k = -1, which is asked last."""
    from scipy.special import bdtr

    return [*bdtr(np.arange(n), n, p).tolist(), 0.0]
