"""Scores of regression against scikit-learn and scipy, in the user's units."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics
from torch import Tensor

from tunelab.data.examples import MicroBatch
from tunelab.tasks.metrics.regression_metrics import RegressionScores, average_ranks, pearson, r2_score, spearman

MEAN, STD = [10.0, -3.0], [4.0, 0.5]


def feed(scores: RegressionScores, guessed: Tensor, real: Tensor, size: int) -> dict[str, float]:
    """Score in micro-batches of `size` rows, with a filler at the end."""
    one = torch.ones(1, dtype=torch.int64)
    for start in range(0, len(guessed), size):
        part = slice(start, start + size)
        rows = torch.arange(len(guessed))[part]
        scores.update(guessed[part], MicroBatch(one[:, None], one, real[part], rows))
    scores.update(guessed[:1] + 50, MicroBatch(one[:, None], one, real[:1], -one))
    return scores.compute()


@pytest.fixture
def pairs() -> tuple[Tensor, Tensor]:
    """Predictions and targets, standardised, (150, 2), with many ties."""
    torch.manual_seed(0)
    real = torch.randn(150, 2).mul(2).round().div(2)
    return (real + torch.randn(150, 2)).mul(4).round().div(4), real


@pytest.mark.parametrize("size", [1, 7, 150])
def test_scores_are_those_of_scikit_learn_and_scipy_for_every_micro_batch(size, pairs):
    found = feed(RegressionScores(["x", "y"], MEAN, STD), *pairs, size)
    guess, real = (values.double().numpy() * STD + MEAN for values in pairs)
    columns = list(zip(guess.T, real.T, strict=True))
    assert found == pytest.approx(
        {
            "loss": float((pairs[0] - pairs[1]).double().square().mean()),
            "mse": metrics.mean_squared_error(real, guess),
            "mae": metrics.mean_absolute_error(real, guess),
            "r2": metrics.r2_score(real, guess),
            "pearson": np.mean([stats.pearsonr(a, b).statistic for a, b in columns]),
            "spearman": np.mean([stats.spearmanr(a, b).statistic for a, b in columns]),
        },
        rel=1e-10,
    )


def test_the_report_tells_the_targets_apart(pairs):
    scores = RegressionScores(["x", "y"], MEAN, STD)
    feed(scores, *pairs, 150)
    first, second = scores.report()["per_target"]
    guess, real = (values.double().numpy() * STD + MEAN for values in pairs)
    assert (first["target"], second["target"], second["support"]) == ("x", "y", 150)
    assert first["mse"] == pytest.approx(metrics.mean_squared_error(real[:, 0], guess[:, 0]))
    assert second["mae"] == pytest.approx(metrics.mean_absolute_error(real[:, 1], guess[:, 1]))


def test_tied_values_share_their_rank_as_in_scipy():
    values = torch.tensor([3.0, 1.0, 3.0, 2.0, 3.0, 1.0], dtype=torch.float64)
    assert average_ranks(values).tolist() == stats.rankdata(values.numpy()).tolist()


def test_a_correlation_with_a_constant_is_not_a_number():
    constant, other = torch.full((5,), 0.1, dtype=torch.float64), torch.arange(5, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        assert math.isnan(stats.pearsonr(constant, other).statistic)
    assert math.isnan(pearson(constant, other))
    assert math.isnan(spearman(other, constant))


def test_correlations_keep_their_digits_far_from_zero():
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(100, generator=generator, dtype=torch.float64)
    second = first + torch.randn(100, generator=generator, dtype=torch.float64)
    assert pearson(first * 1e-3 + 1e6, second) == pytest.approx(pearson(first, second), rel=1e-6)


def test_a_prediction_that_is_not_a_number_is_not_ranked():
    broken = torch.tensor([1.0, float("nan"), 2.0], dtype=torch.float64)
    assert math.isnan(spearman(broken, torch.arange(3.0, dtype=torch.float64)))


def test_explained_variance_of_a_constant_target_is_that_of_scikit_learn():
    real = torch.full((4,), 0.1, dtype=torch.float64)
    assert r2_score(real, real) == metrics.r2_score(real, real) == 1
    assert r2_score(real + 1, real) == metrics.r2_score(real, real + 1) == 0
    assert math.isnan(r2_score(real[:1], real[:1]))


def test_reset_forgets_everything(pairs):
    scores = RegressionScores(["x", "y"], MEAN, STD)
    first = feed(scores, *pairs, 50)
    scores.reset()
    assert feed(scores, *pairs, 50) == first
