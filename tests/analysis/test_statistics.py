"""Two systems on the same rows, and the best of n, against SciPy and by counting every case."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from tunelab.analysis.row_scores import RowScore, macro_f1_score, mean_score, pearson_score, ratio_score
from tunelab.analysis.statistics import (
    cohens_d,
    effect_size_name,
    expected_best,
    mcnemar_test,
    mean_interval,
    paired_bootstrap,
    percentile_interval,
    score_interval,
    wilson_interval,
)

DICE = np.random.default_rng(0)
FIRST = DICE.normal(0.0, 1.0, 200)
SECOND = FIRST + DICE.normal(0.15, 0.5, 200)


def test_the_paired_interval_is_that_of_scipy() -> None:
    found = paired_bootstrap(mean_score(FIRST), mean_score(SECOND), draws=4000)
    theirs = stats.bootstrap(
        (FIRST, SECOND), lambda a, b: b.mean() - a.mean(), paired=True, vectorized=False, n_resamples=4000,
        method="percentile", rng=1,
    ).confidence_interval  # fmt: skip

    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)
    assert found.gain == pytest.approx(float((SECOND - FIRST).mean()))
    assert found.p == pytest.approx(float(stats.ttest_rel(SECOND, FIRST).pvalue), abs=0.01)


def test_a_score_that_is_no_mean_of_rows_is_drawn_the_same_way() -> None:
    first, second = mean_score(FIRST), mean_score(SECOND)
    whole = paired_bootstrap(RowScore(200, first.score_rows), RowScore(200, second.score_rows))
    fast = paired_bootstrap(first, second)

    assert (whole.low, whole.high) == pytest.approx((fast.low, fast.high))
    assert np.isnan(whole.effect) and fast.effect == pytest.approx(cohens_d(SECOND - FIRST))


@pytest.mark.parametrize("rows", [1, 2, 37, 200])
def test_the_draws_are_those_of_a_loop_that_draws_rows_one_sample_after_another(rows: int) -> None:
    # Given a mean of rows, and a score that is no mean of rows
    weights = np.arange(1.0, rows + 1)
    first, second = FIRST[:rows], SECOND[:rows]
    scores = [mean_score(first), mean_score(second)], [ratio_score(first, weights), ratio_score(second, weights)]
    for one, other in scores:
        # When every sample is drawn by itself
        dice = np.random.default_rng(0)
        samples = [dice.integers(0, rows, rows) for _ in range(500)]
        gains = [other.score_rows(sample) - one.score_rows(sample) for sample in samples]

        # Then the interval is the same
        found = paired_bootstrap(one, other, draws=500)
        assert (found.low, found.high) == pytest.approx(percentile_interval(gains), rel=1e-9)


def test_equal_systems_do_not_differ() -> None:
    found = paired_bootstrap(mean_score(np.zeros(200)), mean_score(np.zeros(200)))

    assert not found.differs and found.p == 1.0 and found.effect == 0.0


def test_false_alarms_come_as_often_as_promised() -> None:
    dice, alarms = np.random.default_rng(3), 0
    for _ in range(200):
        gaps = dice.normal(0.0, 1.0, 60)
        alarms += paired_bootstrap(mean_score(np.zeros(60)), mean_score(gaps), draws=300).differs

    assert 2 <= alarms <= 24, "5 % of 200 are 10"


def test_mcnemar_is_the_binomial_test_on_rows_that_only_one_got_right() -> None:
    first = np.array([1] * 30 + [0] * 10 + [1] * 4 + [0] * 6)
    second = np.array([1] * 30 + [1] * 10 + [0] * 4 + [0] * 6)

    found = mcnemar_test(first, second)

    by_hand = min(1.0, 2 * sum(stats.binom.pmf(k, 14, 0.5) for k in range(5)))
    assert (found.only_first, found.only_second) == (4, 10)
    assert found.p == pytest.approx(by_hand)
    assert mcnemar_test([True, False], [True, False]).p == 1.0


def test_sizes_are_cohens() -> None:
    assert [effect_size_name(effect) for effect in (0.1, -0.3, 0.6, -1.2)] == ["negligible", "small", "medium", "large"]


def test_the_best_of_n_is_what_counting_every_choice_gives() -> None:
    costs = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6, 5.0]

    found = expected_best(costs)

    for count in range(1, len(costs) + 1):
        each = [min(chosen) for chosen in combinations(costs, count)]
        assert found.mean[count - 1] == pytest.approx(float(np.mean(each)))
        assert found.low[count - 1] <= found.mean[count - 1] <= found.high[count - 1]
        ends = np.quantile(each, [0.05, 0.95], method="inverted_cdf")
        assert (found.low[count - 1], found.high[count - 1]) == tuple(ends)


def few_rows_a_class(seed: int, rows: int = 300, names: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted classes, seven of ten right."""
    dice = np.random.default_rng(seed)
    true = dice.integers(names, size=rows)
    return true, np.where(dice.random(rows) < 0.7, true, dice.integers(names, size=rows))


def test_macro_f1_of_three_rows_a_class_lies_in_its_interval_and_so_does_that_of_the_population() -> None:
    # Given the score of a population, and splits of it with three rows a class
    population = macro_f1_score(*few_rows_a_class(0, 200_000), 100).value

    # When each split gets an interval
    covered = []
    for seed in range(1, 13):
        score = macro_f1_score(*few_rows_a_class(seed), 100)
        interval = score_interval(score, draws=60)
        assert interval.low <= score.value <= interval.high and 0.08 < interval.high - interval.low < 0.3
        covered.append(interval.low <= population <= interval.high)

    # Then hardly one misses the population, which bench/intervals measures with more of them
    assert sum(covered) >= 10


def test_too_few_rows_a_class_have_no_interval_and_a_reason() -> None:
    interval = score_interval(macro_f1_score(*few_rows_a_class(0, 150), 100))
    assert np.isnan(interval.low) and "150 rows of" in interval.reason and "too few" in interval.reason


def test_a_perfect_score_on_few_rows_is_not_taken_for_certain() -> None:
    true = np.arange(40) % 4
    interval = score_interval(macro_f1_score(true, true, 4))
    assert 0.8 < interval.low < 0.97 and interval.high == 1
    low, high = score_interval(mean_score(np.ones(40))).low, score_interval(mean_score(np.ones(40))).high
    assert (low, high) == pytest.approx(wilson_interval(40, 40))


def test_the_interval_of_a_mean_is_students_where_values_are_not_skewed_and_wider_above_where_they_are() -> None:
    even = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    theirs = stats.t.interval(0.95, 5, even.mean(), stats.sem(even))
    assert mean_interval(even) == pytest.approx(theirs)
    skewed = np.random.default_rng(0).normal(size=60) ** 2
    low, high = mean_interval(skewed)
    assert high - skewed.mean() > 1.2 * (skewed.mean() - low) > 0
    shares = np.array([1.0] * 28 + [0.2, 0.5])
    assert 0 <= mean_interval(shares)[0] < shares.mean() < mean_interval(shares)[1] <= 1
    assert mean_interval(np.full(5, 0.3)) == (0.3, 0.3)


def test_the_interval_of_a_correlation_is_fishers_nearly() -> None:
    dice = np.random.default_rng(2)
    one = dice.normal(size=(200, 1))
    other = one + 0.5 * dice.normal(size=(200, 1))
    interval = score_interval(pearson_score(one, other), draws=500)
    theirs = stats.pearsonr(one[:, 0], other[:, 0]).confidence_interval()
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), abs=0.015)


def test_a_gain_in_macro_f1_of_few_rows_a_class_lies_in_an_interval_wide_enough_for_its_bias() -> None:
    true, first = few_rows_a_class(3)
    second = np.where(np.random.default_rng(4).random(len(true)) < 0.5, true, first)
    one, other = macro_f1_score(true, first, 100), macro_f1_score(true, second, 100)
    found = paired_bootstrap(one, other, draws=200)
    plain = paired_bootstrap(RowScore(300, one.score_rows), RowScore(300, other.score_rows), draws=200)
    assert found.low <= found.gain <= found.high and found.high - found.low > plain.high - plain.low
    assert found.p >= plain.p and found.differs
