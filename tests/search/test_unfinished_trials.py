"""Trials that did not run to their end, as samplers see them."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import scipy.stats
from optuna.trial import FrozenTrial, TrialState, create_trial

from tunelab.search.samplers import extrapolate_result, warp_worse_half


def trial(scores: Sequence[float], *, value: float | None = None) -> FrozenTrial:
    reported: Mapping[int, float] = dict(enumerate(scores, 1))
    state = TrialState.PRUNED if value is None else TrialState.COMPLETE
    return create_trial(state=state, value=value, intermediate_values=dict(reported))


def test_a_pruned_trial_counts_as_the_line_through_the_others_tells() -> None:
    starts, ends = [3.0, 2.5, 2.0, 2.2], [1.4, 1.3, 1.0, 1.15]
    whole = [trial([start, end], value=end) for start, end in zip(starts, ends, strict=True)]
    line = scipy.stats.linregress(starts, ends)
    assert extrapolate_result(trial([3.6]), whole) == pytest.approx(line.intercept + line.slope * 3.6)


def test_what_counts_is_the_last_score_that_a_pruned_trial_reached() -> None:
    whole = [trial([9.0, 2.5, 1.0], value=1.0)]
    assert extrapolate_result(trial([1.0, 3.0]), whole) == pytest.approx(1.5)


def test_one_trial_of_comparison_shifts_and_does_not_scale() -> None:
    assert extrapolate_result(trial([3.0]), [trial([2.5, 1.0], value=1.0)]) == pytest.approx(1.5)


def test_a_worse_start_is_never_foreseen_as_a_better_end() -> None:
    whole = [trial([3.0], value=1.0), trial([2.0], value=1.2), trial([2.5], value=1.1)]  # noise: the slope is below 0
    assert extrapolate_result(trial([9.0]), whole) == pytest.approx(1.1)


def test_what_was_never_finite_is_not_foreseen() -> None:
    whole = [trial([2.0, 1.0], value=1.0)]
    assert extrapolate_result(trial([math.nan, math.inf]), whole) is None
    assert extrapolate_result(trial([2.5, math.nan]), whole) == pytest.approx(1.5)


def test_the_good_half_of_values_stays_and_the_bad_half_keeps_its_order() -> None:
    values = [0.9, 1.0, 1.1, 6.0, 40.0, 1e9, 0.95]
    warped = warp_worse_half(values, minimize=True)
    assert [warped[place] for place in (0, 1, 2, 6)] == [0.9, 1.0, 1.1, 0.95]
    assert np.argsort(warped).tolist() == np.argsort(values).tolist()
    assert max(warped) < 1.5  # the differences among the bad ones no longer dwarf those among the good ones


def test_ranks_follow_the_same_rule_for_scores_that_grow() -> None:
    values = [0.9, 1.0, 1.1, 6.0, 40.0, 1e9, 0.95]
    mirrored = warp_worse_half([-value for value in values], minimize=False)
    assert mirrored == pytest.approx([-value for value in warp_worse_half(values, minimize=True)])


def test_equal_bad_values_stay_equal() -> None:
    warped = warp_worse_half([1.0, 1.1, 1.2, 5.0, 5.0, 5.0], minimize=True)
    assert warped[3] == warped[4] == warped[5]


def test_values_without_differences_stay_as_they_are() -> None:
    assert warp_worse_half([2.0, 2.0, 2.0], minimize=True) == [2.0, 2.0, 2.0]
    assert warp_worse_half([], minimize=True) == []
