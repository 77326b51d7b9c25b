"""Two systems on the same rows, and the best of n, against SciPy and by counting every case."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from tunelab.analysis.row_scores import RowScore, mean_score, ratio_score
from tunelab.analysis.statistics import (
    cohens_d,
    effect_size_name,
    expected_best,
    mcnemar_test,
    paired_bootstrap,
    percentile_interval,
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
