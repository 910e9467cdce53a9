"""Correlations over few points, with intervals."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raygrid.core.errors import SpecError
from raygrid.core.seeds import derive_seed

Array = NDArray[np.float64]
RESAMPLES = 10_000
BCA_FROM = 20  # points


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

    Raises SpecError below three points or where one side does not vary.
    """
    from scipy import stats

    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        raise SpecError(f"{len(a)} points do not make a correlation: 3 that vary are needed")
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
    a: Array, b: Array, statistic: Callable[..., Array], resamples: int
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


def _pearson(a: Array, b: Array, axis: int = -1) -> Array:
    a = a - a.mean(axis=axis, keepdims=True)
    b = b - b.mean(axis=axis, keepdims=True)
    scale = np.sqrt((a * a).sum(axis=axis) * (b * b).sum(axis=axis))
    return np.divide((a * b).sum(axis=axis), scale, out=np.zeros_like(scale), where=scale > 0)


def _spearman(a: Array, b: Array, axis: int = -1) -> Array:
    from scipy import stats

    return _pearson(stats.rankdata(a, axis=axis), stats.rankdata(b, axis=axis), axis)


def _kendall(a: Array, b: Array, axis: int = -1) -> Array:
    """tau-b is the correlation of the signs of all pairs of differences."""
    a, b = np.moveaxis(a, axis, -1), np.moveaxis(b, axis, -1)
    left, right = np.triu_indices(a.shape[-1], 1)
    signs = np.sign(a[..., left] - a[..., right]), np.sign(b[..., left] - b[..., right])
    scale = np.sqrt((signs[0] ** 2).sum(-1) * (signs[1] ** 2).sum(-1))
    return np.divide(
        (signs[0] * signs[1]).sum(-1), scale, out=np.zeros_like(scale), where=scale > 0
    )
