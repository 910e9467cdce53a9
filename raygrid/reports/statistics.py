"""Statistics of few values: spreads, intervals, shares of n, paired tests, correlations."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from raygrid.core.errors import SpecError
from raygrid.core.lazy import np
from raygrid.core.seeds import derive_seed

if TYPE_CHECKING:
    from numpy.typing import NDArray

TWO_SEED_WIDTH = 8.98
"""Half a 95 % interval over two seeds, in sample standard deviations: 12.706 / sqrt(2)."""


def average(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def spread(values: Sequence[float]) -> float | None:
    """Sample standard deviation (ddof=1); None below two values."""
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def confidence(values: Sequence[float], images: int = 0) -> tuple[float | None, float | None, str]:
    """95 % interval: Student's t over seeds, Wilson's over images for a single one."""
    mean, std = average(values), spread(values)
    if mean is not None and std is not None:
        half = _t(len(values) - 1) * std / math.sqrt(len(values))
        return mean - half, mean + half, "t"
    if values and images:
        return *wilson(values[0], images), "wilson"
    return None, None, ""


def caution(n: int, share: bool = False) -> dict[str, str]:
    """What a reader has to know of an interval over n seeds, as a field of a row.

    share: whether it ends where shares do.
    """
    if n != 2:
        return {}
    return {
        "note": f"n = 2: the interval is the mean ± {TWO_SEED_WIDTH} s{', from 0 to 1' * share}"
    }


@cache
def _t(freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of n trials."""
    z = 1.959964
    scale = 1 + z * z / n
    center = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    return center - half, center + half


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


def signed_rank(apart: Sequence[float]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; exact where there are no ties."""
    from scipy.stats import wilcoxon

    return float(wilcoxon(apart).pvalue) if any(apart) else 1.0


def holm(ps: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979), in their order."""
    corrected, least = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        least = max(least, min(1.0, (len(ps) - rank) * ps[place]))
        corrected[place] = least
    return corrected


FloatArray: TypeAlias = "NDArray[np.float64]"


RESAMPLES = 10_000
"""Draws of a bootstrap."""
BCA_FROM = 20  # points
LEAST_POINTS = 5  # points of a correlation, seeds of a p-value


@dataclass(frozen=True)
class Measure:
    """A correlation with its two-sided p-value and 95 % bootstrap interval over the points."""

    value: float
    p: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}], p = {self.p:.2g}"


@dataclass(frozen=True)
class Correlation:
    """Pearson's r, Spearman's rho and Kendall's tau-b of n points."""

    n: int
    pearson: Measure
    spearman: Measure
    kendall: Measure

    def __str__(self) -> str:
        return f"n = {self.n}; r = {self.pearson}; ρ = {self.spearman}; τ = {self.kendall}"


def correlate(x: Sequence[float], y: Sequence[float], resamples: int = RESAMPLES) -> Correlation:
    """All three correlations; intervals are BCa from 20 points on, else percentile.

    Raises SpecError below five points, whose intervals and p-values mean nothing, or where one
    side does not vary.
    """
    from scipy import stats

    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(a) < LEAST_POINTS or np.ptp(a) == 0 or np.ptp(b) == 0:
        raise SpecError(
            f"{len(a)} points do not make a correlation: {LEAST_POINTS} that vary are needed"
        )
    found = {
        "pearson": (stats.pearsonr(a, b), _pearson),
        "spearman": (stats.spearmanr(a, b), _spearman),
        "kendall": (stats.kendalltau(a, b), _kendall),
    }
    measures = {
        name: Measure(float(test.statistic), float(test.pvalue), *_interval(a, b, how, resamples))
        for name, (test, how) in found.items()
    }
    return Correlation(len(a), **measures)


def _interval(
    a: FloatArray, b: FloatArray, statistic: Callable[..., FloatArray], resamples: int
) -> tuple[float, float]:
    """Bootstrap over points. Resamples in which a side does not vary count as no correlation."""
    from scipy import stats

    def interval(method: str) -> tuple[float, float]:
        found = stats.bootstrap(
            (a, b),
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=resamples,
            batch=max(1, 2_000_000 // len(a) ** 2),  # all pairs of a batch are in memory
            method=method,
            rng=np.random.default_rng(derive_seed("bootstrap", a.tolist(), b.tolist())),
        ).confidence_interval
        return float(found.low), float(found.high)

    if len(a) >= BCA_FROM:
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            low, high = interval("BCa")
        if not math.isnan(low + high):
            return low, high
    return interval("percentile")


def _pearson(a: FloatArray, b: FloatArray, axis: int = -1) -> FloatArray:
    a = a - a.mean(axis=axis, keepdims=True)
    b = b - b.mean(axis=axis, keepdims=True)
    scale = np.sqrt((a * a).sum(axis=axis) * (b * b).sum(axis=axis))
    return np.divide((a * b).sum(axis=axis), scale, out=np.zeros_like(scale), where=scale > 0)


def _spearman(a: FloatArray, b: FloatArray, axis: int = -1) -> FloatArray:
    from scipy import stats

    return _pearson(stats.rankdata(a, axis=axis), stats.rankdata(b, axis=axis), axis)


def _kendall(a: FloatArray, b: FloatArray, axis: int = -1) -> FloatArray:
    """tau-b is the correlation of the signs of all pairs of differences."""
    a, b = np.moveaxis(a, axis, -1), np.moveaxis(b, axis, -1)
    left, right = np.triu_indices(a.shape[-1], 1)
    signs = np.sign(a[..., left] - a[..., right]), np.sign(b[..., left] - b[..., right])
    scale = np.sqrt((signs[0] ** 2).sum(-1) * (signs[1] ** 2).sum(-1))
    return np.divide(
        (signs[0] * signs[1]).sum(-1), scale, out=np.zeros_like(scale), where=scale > 0
    )
