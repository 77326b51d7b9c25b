"""Confidence intervals, paired tests over test rows, and the expected best of n trials.  Pure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import gammaln

from tunelab.analysis.row_scores import NO_VALUES, FloatArray, RowIndices, RowScore
from tunelab.language.translation import translate

CONFIDENCE = 0.95
BOOTSTRAP_DRAWS = 2000
GAIN_DRAWS = 500  # of them for the bias of a gain
MIN_DRAWS = 60  # of a score on very many rows, whose bias is small and whose error needs no second digit
RESAMPLED_ROWS = 2_000_000  # in all draws of an interval, at which that begins
MIN_SKEWNESS = 1e-6  # of values; below it there is nothing to correct, and the formula divides by it
MAX_REPEATS = 100  # times that a row is repeated to weigh it against pseudo-rows
MAX_CORRELATION = 1 - 1e-12
RESAMPLED_AT_ONCE = 2**20  # values that stand in memory while a score is resampled
SIGNIFICANCE = 0.05
EFFECT_SIZES = ((0.8, "large"), (0.5, "medium"), (0.2, "small"))  # Cohen (1988)


def wilson_interval(hits: int, rows: int, level: float = CONFIDENCE) -> tuple[float, float]:
    """Confidence interval of a share (Wilson 1927): right near 0 and 1 and for few rows, where +- two errors is not."""
    if not rows:
        return math.nan, math.nan
    interval = stats.binomtest(hits, rows).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_scores(score: RowScore, *, draws: int = BOOTSTRAP_DRAWS, seed: int = 0) -> FloatArray:
    """A score over samples of its rows with replacement (Efron 1979), (draws,).

    Args:
        score: Of one system.
        draws: How many samples.
        seed: Of the samples: the same rows give the same interval.
    """
    return _resample_rows(score.rows, score.score_rows, score.row_values, draws, seed)


def percentile_interval(values: FloatArray | Sequence[float], level: float = CONFIDENCE) -> tuple[float, float]:
    """The middle part of bootstrapped scores, those that are no number left out."""
    kept = np.asarray(values, dtype=np.float64)
    kept = kept[np.isfinite(kept)]
    if not len(kept):
        return math.nan, math.nan
    low, high = np.quantile(kept, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class ScoreInterval:
    """A confidence interval of a score, which holds the score itself.

    Attributes:
        low, high: Its ends; nan where there is none.
        reason: Why there is none; empty where there is one.
    """

    low: float
    high: float
    reason: str = ""


def score_interval(score: RowScore, *, draws: int = BOOTSTRAP_DRAWS, seed: int = 0) -> ScoreInterval:
    """The interval that covers the score over all rows like these in 95 of 100 splits; measured in bench/intervals.

    Args:
        score: Of one system.
        draws: Bootstrap samples, for a score that is no mean of rows.
        seed: Of the samples: the same rows give the same interval.
    """
    reason = score.no_interval or (translate("one row has no interval") if score.rows < 2 else "")
    if reason:
        return ScoreInterval(math.nan, math.nan, reason)
    if score.binary:
        return ScoreInterval(*wilson_interval(int(score.row_values.sum()), score.rows))
    if len(score.row_values):
        return ScoreInterval(*mean_interval(score.row_values))
    return ScoreInterval(*bias_corrected_interval(score, draws, seed))


def mean_interval(values: FloatArray, level: float = CONFIDENCE) -> tuple[float, float]:
    """Confidence interval of a mean, t corrected for skewness by Hall's (1992) transformation.

    Right for squared errors and for shares near 1, where percentiles of the bootstrap are too close.
    """
    rows, mean = len(values), float(values.mean())
    error, bounded = float(stats.sem(values)), bool((values >= 0).all() and (values <= 1).all())
    if not error > 0:
        return mean, mean
    skewness = float(stats.skew(values, bias=False)) if rows > 2 else 0.0
    quantiles = stats.t.ppf([0.5 + level / 2, 0.5 - level / 2], rows - 1)
    if abs(skewness) > MIN_SKEWNESS:
        root = math.sqrt(rows)
        shifted = 1 + skewness / root * (quantiles - skewness / (6 * root))
        quantiles = root * 3 / skewness * (np.cbrt(shifted) - 1)
    low, high = (mean - float(quantile) * error for quantile in quantiles)
    low, high = min(low, mean), max(high, mean)
    return (max(low, 0.0), min(high, 1.0)) if bounded else (low, high)


def bias_corrected_interval(
    score: RowScore, draws: int = BOOTSTRAP_DRAWS, seed: int = 0, level: float = CONFIDENCE
) -> tuple[float, float]:
    """Confidence interval by the bootstrap, for a score that few rows bias, as macro F1 does.

    It holds the score, the score without its bias, and what lies within 1.96 standard errors of either.  The bias is
    that of the double bootstrap (Hall and Martin 1988); being a guess itself, half of it adds to the error.
    """
    dice, factor = np.random.default_rng(seed), max(1, min(MAX_REPEATS, RESAMPLED_AT_ONCE // (8 * score.rows)))
    draws = min(draws, max(MIN_DRAWS, RESAMPLED_ROWS // score.rows))
    weights = np.concatenate([np.ones(score.rows), score.pseudo_weights])
    centre = score.score_rows(np.repeat(np.arange(len(weights)), np.rint(weights * factor).astype(np.int64)))
    once, twice = np.empty(draws), np.empty(draws)
    for draw in range(draws):
        chosen = dice.choice(len(weights), score.rows, p=weights / weights.sum())
        once[draw] = score.score_rows(chosen)
        twice[draw] = score.score_rows(dice.choice(chosen, score.rows))
    value = score.value
    if score.scale == "correlation":
        value, centre, once, twice = (to_fisher_scale(each) for each in (value, centre, once, twice))
    bias = float(2 * (np.nanmean(once) - centre) - (np.nanmean(twice) - np.nanmean(once)))
    error = math.hypot(float(np.nanstd(once, ddof=1)), bias / 2)
    reach = error * float(stats.norm.ppf(0.5 + level / 2))
    low, high = min(centre, centre - bias) - reach, max(centre, centre - bias) + reach
    low, high = min(low, value), max(high, value)
    if score.scale == "correlation":
        return math.tanh(low), math.tanh(high)
    return (max(low, 0.0), min(high, 1.0)) if score.scale == "share" else (low, high)


def to_fisher_scale(correlation: Any) -> Any:
    """Fisher's transformation, finite at 1."""
    return np.arctanh(np.clip(correlation, -MAX_CORRELATION, MAX_CORRELATION))


@dataclass(frozen=True)
class PairedComparison:
    """The second system against the first on one score.

    Attributes:
        first, second: The score of each over all rows.
        gain: Second minus first.
        low, high: Its 95 % interval by the paired bootstrap (Koehn 2004; percentiles of Efron 1979); for macro F1
            widened by the bias of few rows a class.
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
    first: RowScore, second: RowScore, *, draws: int = BOOTSTRAP_DRAWS, seed: int = 0
) -> PairedComparison:
    """Compare two systems on samples of the rows, the same sample for both.

    Args:
        first: A score of the first system.
        second: The same score of the second, over the same rows.
        draws: Samples.
        seed: Of the samples.
    """
    means = len(first.row_values) > 0 and len(second.row_values) > 0
    differences = second.row_values - first.row_values if means else NO_VALUES
    gain_of = RowScore(second.rows, lambda chosen: second.score_rows(chosen) - first.score_rows(chosen))
    gains = _resample_rows(second.rows, gain_of.score_rows, differences, draws, seed)
    kept = gains[np.isfinite(gains)]
    tail = min(float((kept <= 0).sum()), float((kept >= 0).sum()))
    low, high = percentile_interval(gains)
    gain, p = second.value - first.value, min(1.0, 2 * (tail + 1) / (len(kept) + 1))
    low, high = min(low, gain), max(high, gain)
    if len(second.pseudo_weights):  # few rows of a class bias both scores, and a gain less than either
        ends = bias_corrected_interval(gain_of, min(draws, GAIN_DRAWS), seed)
        low, high = min(low, ends[0]), max(high, ends[1])
        error = (high - low) / (2 * float(stats.norm.ppf(0.5 + CONFIDENCE / 2)))
        p = max(p, float(2 * stats.norm.sf(abs(gain) / error))) if error > 0 else p
    return PairedComparison(
        first.value,
        second.value,
        gain,
        low,
        high,
        p,
        cohens_d(differences),
        second.rows,
    )


def _resample_rows(
    rows: int, score: Callable[[RowIndices], float], row_values: FloatArray, draws: int, seed: int
) -> FloatArray:
    """A score over samples of rows, (draws,); where it is the mean of `row_values`, all samples at once."""
    values: NDArray[Any] = row_values if len(row_values) else np.arange(rows)
    statistic: Callable[..., Any] = np.mean if len(row_values) else score
    if rows < 2:  # every sample is the same
        return np.full(draws, statistic(values))
    resampled = stats.bootstrap(
        (values,),
        statistic,
        n_resamples=draws,
        batch=max(1, RESAMPLED_AT_ONCE // rows),
        vectorized=statistic is np.mean,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return np.asarray(resampled.bootstrap_distribution, dtype=np.float64)


def cohens_d(differences: FloatArray) -> float:
    """Mean difference in units of its standard deviation; nan where it is not defined."""
    if len(differences) < 2:
        return math.nan
    spread, mean = float(differences.std(ddof=1)), float(differences.mean())
    return mean / spread if spread > 0 else (0.0 if mean == 0 else math.nan)


def effect_size_name(effect: float) -> str:
    """The size of an effect: negligible, small, medium or large."""
    return next((word for least, word in EFFECT_SIZES if abs(effect) >= least), "negligible")


@dataclass(frozen=True)
class McNemarResult:
    """Rows that only one of two systems got right.

    Attributes:
        only_first, only_second: How many.
        p: Exact chance of a split this uneven if both were equally good (McNemar 1947, binomial).
    """

    only_first: int
    only_second: int
    p: float


def mcnemar_test(first: Sequence[bool] | FloatArray, second: Sequence[bool] | FloatArray) -> McNemarResult:
    """The exact test on right and wrong answers to the same rows."""
    a, b = np.asarray(first).astype(bool), np.asarray(second).astype(bool)
    one, other = int((a & ~b).sum()), int((~a & b).sum())
    if one + other == 0:
        return McNemarResult(0, 0, 1.0)
    return McNemarResult(one, other, float(stats.binomtest(other, one + other, 0.5).pvalue))


LogCounts = NDArray[np.float64]
BAND_LEVELS = (0.05, 0.95)


@dataclass(frozen=True)
class ExpectedBest:
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
        """The expected gain of the second half of the trials."""
        return self.mean[len(self.mean) // 2 - 1] - self.mean[-1] if len(self.mean) > 1 else math.nan


def expected_best(costs: Sequence[float]) -> ExpectedBest:
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
            chance = np.where(
                left >= count - 1, np.exp(log_binomial(left, count - 1) - log_binomial(whole, count)), 0.0
            )
        mean.append(float(chance @ ordered))
        summed = np.cumsum(chance)
        ends = [ordered[min(whole - 1, int(np.searchsorted(summed, level - 1e-12)))] for level in BAND_LEVELS]
        low.append(float(ends[0]))
        high.append(float(ends[1]))
    return ExpectedBest(tuple(range(1, whole + 1)), tuple(mean), tuple(low), tuple(high))


def log_binomial(of: LogCounts | NDArray[np.int64] | int, taken: int) -> LogCounts:
    """The logarithm of a binomial coefficient; nan or infinite where it is 0."""
    whole = np.asarray(of, dtype=np.float64)
    rest = np.maximum(whole - taken, 0.0)
    return np.asarray(gammaln(whole + 1) - gammaln(taken + 1.0) - gammaln(rest + 1), dtype=np.float64)
