"""How far a score over a sample of rows is to be trusted.  Pure."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
DRAWS = 2000
Figures = NDArray[np.float64]


def wilson(hits: int, rows: int, level: float = LEVEL) -> tuple[float, float]:
    """Confidence interval of a share (Wilson 1927): right near 0 and 1 and for few rows, where +- two errors is not."""
    if not rows:
        return math.nan, math.nan
    z = float(stats.norm.ppf(0.5 + level / 2))
    share, spread = hits / rows, z * z / rows
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / rows + spread / rows / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(
    rows: int,
    score: Callable[[NDArray[np.int64]], float],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Figures:
    """Scores over samples of the rows with replacement (Efron 1979), (draws,).

    Args:
        rows: How many rows there are.
        score: Maps indices of rows, with repetitions, to the score over them.
        draws: How many samples.
        seed: Of the samples: the same rows give the same interval.
    """
    dice = np.random.default_rng(seed)
    return np.array([score(dice.integers(0, rows, rows)) for _ in range(draws)])


def between(values: Figures | Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """The middle part of bootstrapped scores, those that are no number left out."""
    kept = np.asarray(values, dtype=np.float64)
    kept = kept[np.isfinite(kept)]
    if not len(kept):
        return math.nan, math.nan
    low, high = np.quantile(kept, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)
