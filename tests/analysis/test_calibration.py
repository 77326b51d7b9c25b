"""Calibration and intervals against other implementations."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import brier_score_loss, f1_score
from torchmetrics.functional.classification import multiclass_calibration_error

from tunelab.analysis.calibration import brier_score, expected_calibration_error, reliability_bins
from tunelab.analysis.row_scores import RowScore, mean_score, scores_of_predictions
from tunelab.analysis.statistics import bootstrap_scores, percentile_interval, wilson_interval


def test_the_calibration_error_is_that_of_torchmetrics() -> None:
    # Given probabilities of four classes, none of them on the edge of a bin
    dice = np.random.default_rng(0)
    chances = dice.dirichlet([0.7] * 4, 500)
    labels = np.array([dice.choice(4, p=row) for row in chances])

    # When both compute it
    best = chances.argmax(axis=1)
    ours = expected_calibration_error(reliability_bins(chances.max(axis=1).tolist(), (best == labels).tolist()))
    theirs = multiclass_calibration_error(torch.tensor(chances), torch.tensor(labels), num_classes=4, n_bins=15)

    # Then they agree
    assert ours == pytest.approx(float(theirs), abs=1e-6)


def test_a_confidence_of_zero_or_one_falls_into_a_bin() -> None:
    found = reliability_bins([0.0, 1.0, 1.0], [False, True, True], bins=10)

    assert [(one.low, one.high, one.rows) for one in found] == [(0.0, 0.1, 1), (0.9, 1.0, 2)]
    assert expected_calibration_error(found) == 0


def test_the_brier_score_of_two_classes_is_twice_that_of_scikit_learn() -> None:
    chances, labels = [0.1, 0.8, 0.4], [0, 1, 1]

    ours = brier_score([[1 - chance, chance] for chance in chances], labels)

    assert ours == pytest.approx(2 * brier_score_loss(labels, chances))


@pytest.mark.parametrize(("hits", "rows"), [(0, 10), (10, 10), (7, 10), (840, 1000)])
def test_the_interval_of_a_share_is_that_of_scipy(hits: int, rows: int) -> None:
    theirs = stats.binomtest(hits, rows).proportion_ci(method="wilson")

    assert wilson_interval(hits, rows) == pytest.approx((theirs.low, theirs.high))


@pytest.mark.parametrize(("hits", "rows"), [(0, 10), (10, 10), (7, 10), (840, 1000)])
def test_the_interval_of_a_share_is_wilsons_formula_written_out(hits: int, rows: int) -> None:
    z = float(stats.norm.ppf(0.975))
    share, spread = hits / rows, z * z / rows
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * (share * (1 - share) / rows + spread / rows / 4) ** 0.5

    assert wilson_interval(hits, rows) == pytest.approx((middle - half, middle + half), abs=1e-12)


def test_the_bootstrap_covers_the_interval_of_a_mean() -> None:
    # Given 400 normal values
    values = np.random.default_rng(3).normal(2, 1, 400)

    # When their mean is bootstrapped
    low, high = percentile_interval(bootstrap_scores(mean_score(values)))

    # Then the interval is that of the t distribution, nearly; and the same again
    theirs = stats.t.interval(0.95, 399, values.mean(), stats.sem(values))
    assert (low, high) == pytest.approx(theirs, abs=0.02)
    assert (low, high) == percentile_interval(bootstrap_scores(mean_score(values)))
    one_by_one = RowScore(400, lambda rows: float(values[rows].mean()))
    assert (low, high) == pytest.approx(percentile_interval(bootstrap_scores(one_by_one)), rel=1e-9)


def test_scores_over_rows_are_those_of_scikit_learn_and_scipy() -> None:
    # Given predictions of three classes, one of them never right and never said
    dice = np.random.default_rng(1)
    names = ["a", "b", "c"]
    rows = [{"row": at, "label": names[dice.integers(2)], "prediction": names[dice.integers(2)]} for at in range(60)]
    rows = [row | {"probabilities": dict.fromkeys(names, 1 / 3)} for row in rows]
    numbers = [{"row": at, "target": float(dice.normal()), "prediction": float(dice.normal())} for at in range(60)]
    chosen = dice.integers(0, 60, 60)

    # When any choice of rows is scored, some of them twice
    scores = scores_of_predictions(rows) | scores_of_predictions(numbers)
    ours = {name: score.score_rows(chosen) for name, score in scores.items()}

    # Then the scores are the known ones
    right, said = [rows[at]["label"] for at in chosen], [rows[at]["prediction"] for at in chosen]
    theirs = f1_score(right, said, average="macro", zero_division=0)
    assert ours["f1"] == pytest.approx(theirs)
    assert ours["accuracy"] == pytest.approx(np.mean(np.array(right) == np.array(said)))
    targets, guesses = zip(*[(numbers[at]["target"], numbers[at]["prediction"]) for at in chosen], strict=True)
    assert ours["pearson"] == pytest.approx(stats.pearsonr(targets, guesses).statistic)
    assert ours["mse"] == pytest.approx(np.mean((np.array(targets) - np.array(guesses)) ** 2))
