"""Verdicts on configurations, against SciPy and statsmodels' known answers."""

import numpy as np
import pytest
from scipy import stats

from tunelab.search.confirmation import compare_with_default, holm_correction, mean_interval


def test_the_interval_is_students() -> None:
    scores = [0.71, 0.74, 0.69, 0.77, 0.73]
    low, high = stats.t.interval(0.95, 4, loc=np.mean(scores), scale=stats.sem(scores))

    found = mean_interval(scores)

    assert (found.mean, found.low, found.high, found.seeds) == pytest.approx((np.mean(scores), low, high, 5))


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_comparison_is_the_paired_t_test_and_a_gain_is_positive(mode: str) -> None:
    default, better = [1.0, 1.1, 0.9, 1.05], [0.8, 0.95, 0.72, 0.83]
    if mode == "max":
        default, better = better, default
    (found,) = compare_with_default([better], default, mode)

    assert found.p == pytest.approx(stats.ttest_rel(better, default).pvalue)
    assert found.gain == pytest.approx(abs(np.mean(better) - np.mean(default))) and found.gain > 0
    assert found.adopt


def test_a_gain_within_the_noise_is_not_proven() -> None:
    (found,) = compare_with_default([[0.98, 1.12, 0.88, 1.03]], [1.0, 1.1, 0.9, 1.05], "min")

    assert not found.adopt and found.low < 0 < found.high


def test_a_proven_loss_is_not_adopted() -> None:
    (found,) = compare_with_default([[2.0, 2.1, 1.91, 2.05]], [1.0, 1.1, 0.9, 1.05], "min")

    assert found.p < 0.001 and not found.adopt


def test_many_candidates_must_clear_a_higher_bar() -> None:
    default = [1.0, 1.1, 0.9, 1.05]
    borderline = [0.95, 1.08, 0.88, 1.0]  # p = 0.033 by itself
    hopeless = [[1.01, 1.09, 0.91, 1.04]] * 3

    assert compare_with_default([borderline], default, "min")[0].adopt
    assert not compare_with_default([borderline, *hopeless], default, "min")[0].adopt


def test_false_alarms_stay_below_five_in_a_hundred() -> None:
    dice = np.random.default_rng(0)
    alarms = sum(
        any(
            found.adopt
            for found in compare_with_default(dice.normal(size=(3, 5)).tolist(), dice.normal(size=5).tolist(), "max")
        )
        for _ in range(400)
    )

    assert alarms / 400 < 0.05  # two-sided tests of which only gains count


def test_equal_runs_prove_nothing_and_constant_gains_prove_all() -> None:
    assert not compare_with_default([[1.0, 2.0]], [1.0, 2.0], "min")[0].adopt
    assert compare_with_default([[0.5, 1.5, 2.5]], [1.0, 2.0, 3.0], "min")[0].adopt


def test_the_correction_is_the_one_of_holm() -> None:
    chances = [0.01, 0.04, 0.03, 0.005]  # the example of many textbooks: 4, 3, 2 and 1 times, never falling

    assert holm_correction(chances) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_correction([0.6, 0.7]) == [1.0, 1.0] and holm_correction([]) == []
