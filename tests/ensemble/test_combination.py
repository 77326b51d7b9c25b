"""Combining what models say: against closed forms, SciPy and scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from tunelab.analysis.row_scores import class_scores, mean_score, multilabel_scores, regression_scores
from tunelab.ensemble.combination import (
    class_loss,
    disagreement,
    fit_stacking,
    fit_temperature,
    forward_selection,
    greedy_soup_selection,
    least_squares_weights,
    majority_vote,
    mixture_weights,
    multilabel_vote,
    solve_stacking,
    temperature_calibration_error,
    weighted_mean,
)
from tunelab.ensemble.ensemble_scores import paired_gain
from tunelab.ensemble.model_mixture import mix_log_probs
from tunelab.ensemble.model_soup import average_weights
from tunelab.errors import ConfigError

DICE = np.random.default_rng(3)


def said(members: int, rows: int, width: int) -> np.ndarray:
    return softmax(DICE.normal(size=(members, rows, width)) * 2, axis=2)


def test_the_mean_is_weighted() -> None:
    table = said(2, 5, 3)

    np.testing.assert_allclose(weighted_mean(table, [0.25, 0.75]), table[0] / 4 + table[1] * 3 / 4)
    np.testing.assert_allclose(weighted_mean(table), table.mean(axis=0))


def test_a_vote_follows_the_majority_and_a_tie_the_mean() -> None:
    # Given two members for class 0 against a very sure one for class 1; and one against one
    table = np.array([[[0.6, 0.4]], [[0.6, 0.4]], [[0.01, 0.99]]])

    assert majority_vote(table).argmax() == 0
    assert majority_vote(table).sum() == pytest.approx(1)
    assert weighted_mean(table).argmax() == 1
    assert majority_vote(table[1:]).argmax() == 1


def test_each_label_has_a_vote_of_its_own() -> None:
    table = np.array([[[0.4, 0.9]], [[0.4, 0.1]], [[0.1, 0.2]]])

    assert (multilabel_vote(table, 0.3) >= 0.3).tolist() == [[True, False]]
    assert (multilabel_vote(table[1:], 0.3) >= 0.3).tolist() == [[False, False]]  # one against one, with a mean of 0.25


def test_mixture_weights_are_those_of_a_general_optimiser() -> None:
    likely = DICE.uniform(0.05, 0.95, size=(200, 4)) * np.array([1.0, 0.9, 0.6, 0.2])

    found = mixture_weights(likely)

    other = minimize(
        lambda w: -np.log(likely @ w).mean(), np.full(4, 0.25), bounds=[(0, 1)] * 4, method="SLSQP",
        constraints=[{"type": "eq", "fun": lambda w: w.sum() - 1}], options={"ftol": 1e-14},
    )  # fmt: skip
    assert found.sum() == pytest.approx(1) and (found >= 0).all()
    assert np.log(likely @ found).mean() >= -other.fun - 1e-7


def test_squared_error_weights_are_the_textbook_ones() -> None:
    # Errors that are independent with variances 1 and 4 are best averaged 4 to 1
    wanted = DICE.normal(size=200_000)
    noise = np.stack([DICE.normal(size=200_000), 2 * DICE.normal(size=200_000)])

    np.testing.assert_allclose(least_squares_weights(wanted + noise, wanted), [0.8, 0.2], atol=0.01)
    # and a member that only adds error gets nothing
    np.testing.assert_allclose(least_squares_weights(np.stack([wanted, wanted + 5]), wanted), [1, 0], atol=1e-6)


def test_disagreement_counts_rows_over_pairs() -> None:
    first, second = np.eye(2)[[0, 0, 1, 1]], np.eye(2)[[0, 1, 1, 1]]

    assert disagreement(np.stack([first, second])) == 0.25
    assert disagreement(np.stack([first, second, second])) == pytest.approx((0.25 + 0.25 + 0) / 3)


def test_a_stack_of_one_model_and_two_classes_is_the_logistic_regression_of_scikit_learn() -> None:
    # With one member the output is w_c * input_c + b_c, so the log-odds are linear in both inputs
    inputs = log_softmax(DICE.normal(size=(1, 400, 2)) * 2, axis=2)
    wanted = (DICE.uniform(size=400) < 1 / (1 + np.exp(-(inputs[0, :, 1] - inputs[0, :, 0]) / 2 - 0.3))).astype(int)

    weights, bias = solve_stacking(torch.from_numpy(inputs), torch.from_numpy(wanted), class_loss, 0.0)

    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(inputs[0], wanted)
    ours = torch.from_numpy(inputs[0]) * weights + bias
    np.testing.assert_allclose(ours.softmax(1).numpy(), reference.predict_proba(inputs[0]), atol=1e-4)


def test_a_stack_pulls_towards_the_mean_and_learns_whom_to_believe() -> None:
    # Given a member that knows the class and two that guess
    wanted = DICE.integers(0, 3, 600)
    sure = np.eye(3)[wanted] * 3 + DICE.normal(size=(600, 3))
    inputs = log_softmax(np.stack([sure, *DICE.normal(size=(2, 600, 3))]), axis=2)

    free = fit_stacking(inputs, wanted, class_loss)
    held, _ = solve_stacking(torch.from_numpy(inputs), torch.from_numpy(wanted), class_loss, 1e6)

    assert free.weights[0].min() > np.abs(free.weights[1:]).max()
    np.testing.assert_allclose(held.numpy(), 1 / 3, atol=1e-4)


def test_temperature_finds_the_factor_that_logits_were_blown_up_by() -> None:
    # Given classes drawn from the probabilities of some logits, and a model that claims three times these logits
    logits = DICE.normal(size=(40_000, 4)) * 1.5
    wanted = (DICE.uniform(size=(40_000, 1)) > softmax(logits, axis=1).cumsum(axis=1)).sum(axis=1)

    assert fit_temperature(logits * 3, wanted) == pytest.approx(3, rel=0.03)
    assert temperature_calibration_error(logits * 3, wanted) > 0.1
    assert temperature_calibration_error(logits * 3, wanted, 3.0) < 0.012
    labels = (DICE.uniform(size=logits.shape) < 1 / (1 + np.exp(-logits))).astype(int)
    assert fit_temperature(logits * 2, labels, multilabel=True) == pytest.approx(2, rel=0.03)


def test_the_calibration_error_is_that_of_a_plain_loop() -> None:
    logits, wanted = DICE.normal(size=(500, 3)), DICE.integers(0, 3, 500)
    chances = softmax(logits, axis=1)
    confident, right = chances.max(axis=1), chances.argmax(axis=1) == wanted
    total = 0.0
    for place in range(15):
        inside = (confident > place / 15) & (confident <= (place + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(confident[inside].mean() - right[inside].mean())

    assert temperature_calibration_error(logits, wanted) == pytest.approx(total, abs=1e-12)


def test_scores_over_any_rows_are_those_of_scikit_learn() -> None:
    logits, wanted = log_softmax(DICE.normal(size=(300, 4)), axis=1), DICE.integers(0, 4, 300)
    rows = DICE.integers(0, 300, 300)
    rows = rows[wanted[rows] != 2]  # a class that is only predicted
    found = class_scores(logits, wanted)

    for some in (rows, rows[:3]):
        assert found["f1"].score_rows(some) == pytest.approx(
            f1_score(wanted[some], logits[some].argmax(axis=1), average="macro")
        )
    rows = DICE.integers(0, 300, 300)
    several = (DICE.uniform(size=(300, 4)) < 0.3).astype(int)
    assert multilabel_scores(logits, several, 0.4)["f1"].score_rows(rows) == pytest.approx(
        f1_score(several[rows], 1 / (1 + np.exp(-logits[rows])) >= 0.4, average="macro", zero_division=0)
    )
    numbers, real = DICE.normal(size=(300, 1)), DICE.normal(size=(300, 1))
    assert regression_scores(numbers, real)["pearson"].score_rows(rows) == pytest.approx(
        np.corrcoef(numbers[rows, 0], real[rows, 0])[0, 1]
    )


def test_the_interval_of_a_gain_is_that_of_the_normal_law_for_a_mean() -> None:
    # Given an ensemble that errs 0.1 less on average
    single = DICE.normal(size=4000)
    better = single - 0.1 + DICE.normal(size=4000) * 0.5

    found = paired_gain(mean_score(single, lower_is_better=True), mean_score(better, lower_is_better=True))

    half = 1.96 * (single - better).std() / 4000**0.5
    assert found.gain == pytest.approx((single - better).mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.08)
    assert found.low < found.gain < found.high


def test_the_interval_of_a_gain_is_the_same_at_every_call() -> None:
    single, both = (mean_score(DICE.normal(size=40), lower_is_better=True) for _ in range(2))

    assert paired_gain(single, both) == paired_gain(single, both)


def test_a_label_at_its_threshold_is_a_vote_for_it() -> None:
    assert multilabel_vote(np.array([[[0.5]], [[0.5]], [[0.1]]]), 0.5)[0, 0] > 0.5


def test_selection_prefers_a_model_that_adds_something() -> None:
    # Given the best model 0, its near twin 1, and a worse one whose errors cancel those of the best
    together = {(0, 1): 0.98, (0, 2): 0.5, (0, 2, 1): 0.7}

    assert forward_selection([1.0, 1.01, 2.0], lambda chosen: together[tuple(chosen)], 3) == [0, 2]


def test_a_greedy_soup_leaves_out_what_lowers_it() -> None:
    together = {(1, 0): 0.85, (1, 2): 0.95}

    assert greedy_soup_selection([0.88, 0.9, 0.7], lambda chosen: together[tuple(chosen)]) == ([1, 2], 0.95)


def test_a_soup_is_the_mean_and_refuses_other_shapes() -> None:
    one, two = (
        {"w": torch.tensor([1.0, 3.0]), "n": torch.tensor(4)},
        {"w": torch.tensor([3.0, 5.0]), "n": torch.tensor(9)},
    )

    assert average_weights([one, two])["w"].tolist() == [2.0, 4.0]
    assert average_weights([one, two])["n"] == 4
    with pytest.raises(ConfigError, match="different shapes"):
        average_weights([one, {"w": torch.zeros(3), "n": torch.tensor(1)}])


def test_a_mixture_is_the_logarithm_of_the_mean_probability() -> None:
    logits = torch.randn(3, 7, 11, generator=torch.Generator().manual_seed(0))
    shares = [0.5, 0.3, 0.2]

    wanted = sum(share * one.softmax(-1) for share, one in zip(shares, logits, strict=True))

    torch.testing.assert_close(mix_log_probs(list(logits.log_softmax(-1)), shares).exp(), wanted)
