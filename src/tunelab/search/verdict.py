"""Is a configuration better than the default, or was it lucky?  Pairs of runs with the same seed decide."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean, stdev

from scipy import stats

LEVEL = 0.05  # share of false alarms that is put up with, over all configurations together


@dataclass(frozen=True)
class Spread:
    """Scores of one configuration over seeds.

    Attributes:
        mean: Of the scores.
        low, high: Its 95 % confidence interval, by Student's t.
        seeds: How many there were.
    """

    mean: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True)
class Comparison:
    """A configuration against the default, seed by seed.

    Attributes:
        gain: Mean difference; positive is better, whichever way the score goes.
        low, high: Its 95 % confidence interval.
        p: Chance of a gain this far from 0 if there is none (paired t test, two sides).
        corrected: The same after Holm's correction for several configurations.
        adopt: Whether the gain is proven: positive, and `corrected` at most `LEVEL`.
    """

    gain: float
    low: float
    high: float
    p: float
    corrected: float
    adopt: bool


def spread(scores: Sequence[float]) -> Spread:
    """Mean and confidence interval; the interval of a single score has no bounds."""
    if len(scores) < 2:
        return Spread(scores[0], float("-inf"), float("inf"), len(scores))
    half = float(stats.t.ppf(0.975, len(scores) - 1)) * stdev(scores) / sqrt(len(scores))
    return Spread(mean(scores), mean(scores) - half, mean(scores) + half, len(scores))


def compare(candidates: Sequence[Sequence[float]], default: Sequence[float], mode: str) -> list[Comparison]:
    """Each candidate against the default.

    Args:
        candidates: Scores of each configuration, seed by seed.
        default: Scores of the default, for the same seeds in the same order.
        mode: `min` or `max`: which way the score is better.

    Returns:
        One comparison for each candidate; `adopt` follows Holm (1979) over all of them.
    """
    sign = -1.0 if mode == "min" else 1.0
    gains = [[sign * (one - other) for one, other in zip(scores, default, strict=True)] for scores in candidates]
    found = [spread(gain) for gain in gains]
    chances = [chance(gain) for gain in gains]
    corrected = holm(chances)
    return [
        Comparison(line.mean, line.low, line.high, p, over_all, over_all <= LEVEL and line.mean > 0)
        for line, p, over_all in zip(found, chances, corrected, strict=True)
    ]


def holm(chances: Sequence[float]) -> list[float]:
    """The p values of several tests, each corrected for the others (Holm 1979).

    Example:
        >>> holm([0.03, 0.01])
        [0.03, 0.02]
    """
    found, least = [1.0] * len(chances), 0.0
    for rank, place in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        least = max(least, min(1.0, chances[place] * (len(chances) - rank)))
        found[place] = least
    return found


def chance(gains: Sequence[float]) -> float:
    """The p value of a paired t test; 1 where there is nothing to test, 0 where every seed gains the same."""
    if len(gains) < 2:
        return 1.0
    if stdev(gains) == 0:
        return 1.0 if gains[0] == 0 else 0.0
    return float(stats.ttest_1samp(gains, 0.0).pvalue)
