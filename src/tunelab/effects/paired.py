"""Two systems on the same rows: is one better, and by how much.  Pure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tunelab.effects.intervals import DRAWS, between

Figures = NDArray[np.float64]
Rows = NDArray[np.int64]
LEVEL = 0.05
SIZES = ((0.8, "large"), (0.5, "medium"), (0.2, "small"))  # Cohen (1988)


@dataclass(frozen=True)
class Paired:
    """The second system against the first on one score.

    Attributes:
        first, second: The score of each over all rows.
        gain: Second minus first.
        low, high: Its 95 % interval by the paired bootstrap (Koehn 2004; percentiles of Efron 1979).
        p: Chance of a gain this far from 0 if there is none, two sides, from the same draws.
        effect: Cohen's d of paired differences: mean by standard deviation; nan where the score is no mean of rows.
        rows: How many both have.
    """

    first: float
    second: float
    gain: float
    low: float
    high: float
    p: float
    effect: float
    rows: int

    @property
    def differs(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def paired_bootstrap(
    rows: int,
    first: Callable[[Rows], float],
    second: Callable[[Rows], float],
    differences: Figures,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Paired:
    """Compare on samples of the rows, the same sample for both.

    Args:
        rows: How many rows both have.
        first: Score of the first system over chosen rows.
        second: The same of the second.
        differences: Second minus first for each row, where the score is a mean of rows; else empty.
        draws: Samples.
        seed: Of the samples.
    """
    everything = np.arange(rows, dtype=np.int64)
    one, other = first(everything), second(everything)
    dice = np.random.default_rng(seed)
    if len(differences):
        gains = np.array([float(differences[dice.integers(0, rows, rows)].mean()) for _ in range(draws)])
    else:
        chosen = (dice.integers(0, rows, rows) for _ in range(draws))
        gains = np.array([second(sample) - first(sample) for sample in chosen])
    low, high = between(gains)
    gain = other - one
    kept = gains[np.isfinite(gains)]
    tail = min(float((kept <= 0).sum()), float((kept >= 0).sum()))
    p = min(1.0, 2 * (tail + 1) / (len(kept) + 1))
    return Paired(one, other, gain, low, high, p, cohen(differences), rows)


def cohen(differences: Figures) -> float:
    """Mean difference in units of its standard deviation; nan where it is not defined."""
    if len(differences) < 2:
        return math.nan
    spread, mean = float(differences.std(ddof=1)), float(differences.mean())
    return mean / spread if spread > 0 else (0.0 if mean == 0 else math.nan)


def size_of(effect: float) -> str:
    """An effect in a word."""
    return next((word for least, word in SIZES if abs(effect) >= least), "negligible")


@dataclass(frozen=True)
class McNemar:
    """Rows that only one of two systems got right.

    Attributes:
        only_first, only_second: How many.
        p: Exact chance of a split this uneven if both were equally good (McNemar 1947, binomial).
    """

    only_first: int
    only_second: int
    p: float


def mcnemar(first: Sequence[bool] | Figures, second: Sequence[bool] | Figures) -> McNemar:
    """The exact test on right and wrong answers to the same rows."""
    a, b = np.asarray(first).astype(bool), np.asarray(second).astype(bool)
    one, other = int((a & ~b).sum()), int((~a & b).sum())
    if one + other == 0:
        return McNemar(0, 0, 1.0)
    return McNemar(one, other, float(stats.binomtest(other, one + other, 0.5).pvalue))
