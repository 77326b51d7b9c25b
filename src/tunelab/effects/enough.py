"""Was the budget enough?  What the best of n trials would have been, for every n.  Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

Figures = NDArray[np.float64]
LEVELS = (0.05, 0.95)


@dataclass(frozen=True)
class BestOf:
    """The best of n trials drawn from those that were run.

    Attributes:
        counts: n, from 1 to all.
        mean: The expected best cost.
        low, high: The middle 90 %.
    """

    counts: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def late_gain(self) -> float:
        """What the second half of the trials gained in expectation."""
        return self.mean[len(self.mean) // 2 - 1] - self.mean[-1] if len(self.mean) > 1 else math.nan


def best_of(costs: Sequence[float]) -> BestOf:
    """The best of n of these costs, exactly: draws without replacement, no sampling.

    The i-th lowest of N (from 0) is the best of n with chance C(N-1-i, n-1) / C(N, n) (Dodge et al. 2019, "Show your
    work", who draw with replacement).
    """
    ordered = np.sort(np.asarray(costs, dtype=np.float64))
    whole, places = len(ordered), np.arange(len(ordered))
    mean, low, high = [], [], []
    for count in range(1, whole + 1):
        left = whole - 1 - places
        with np.errstate(invalid="ignore", divide="ignore"):
            chance = np.where(left >= count - 1, np.exp(log_choose(left, count - 1) - log_choose(whole, count)), 0.0)
        mean.append(float(chance @ ordered))
        summed = np.cumsum(chance)
        ends = [ordered[min(whole - 1, int(np.searchsorted(summed, level - 1e-12)))] for level in LEVELS]
        low.append(float(ends[0]))
        high.append(float(ends[1]))
    return BestOf(tuple(range(1, whole + 1)), tuple(mean), tuple(low), tuple(high))


def log_choose(of: Figures | NDArray[np.int64] | int, taken: int) -> Figures:
    """The logarithm of a binomial coefficient; nan or infinite where it is 0."""
    whole = np.asarray(of, dtype=np.float64)
    rest = np.maximum(whole - taken, 0.0)
    return np.asarray(gammaln(whole + 1) - gammaln(taken + 1.0) - gammaln(rest + 1), dtype=np.float64)
