"""The fitted surface, its shares of variance and its partial dependence, against scikit-learn, Optuna and by hand."""

import math
import random
from itertools import combinations

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
from optuna.trial import create_trial
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from tunelab.analysis.configurations import Configuration, Setting, setting_from_values
from tunelab.analysis.importance import partial_dependence, ped_anova_importance, variance_shares
from tunelab.analysis.surrogate import Surrogate, fit_surrogate, input_columns

ABC = [Setting(name, 0.0, 1.0) for name in "abc"]


def cost(x: dict[str, float]) -> float:
    """Additive in a and b, with an interaction of both; c does nothing."""
    return x["a"] + 2 * x["b"] + 4 * (x["a"] - 0.5) * (x["b"] - 0.5)


def drawn(many: int, seed: int = 0, noise: float = 0.0) -> tuple[list[dict[str, float]], list[float]]:
    """Configurations of three settings and their costs."""
    dice = random.Random(seed)
    rows = [{one.name: dice.random() for one in ABC} for _ in range(many)]
    return rows, [cost(row) + dice.gauss(0, noise) for row in rows]


@pytest.fixture(scope="module")
def surface() -> Surrogate:
    """A surface through 60 trials without noise."""
    rows, costs = drawn(60)
    return fit_surrogate(input_columns(ABC, rows), rows, costs)


def test_predictions_are_those_of_scikit_learn_for_the_same_kernel() -> None:
    rows, costs = drawn(30, noise=0.1)
    ours = fit_surrogate(input_columns(ABC, rows), rows, costs)
    kernel = ConstantKernel(ours.scale) * RBF(ours.lengths) + WhiteKernel(ours.scale * (ours.noise + 1e-8))
    theirs = GaussianProcessRegressor(kernel, optimizer=None)
    theirs.fit(ours.inputs, (np.array(costs) - ours.mean) / ours.std)
    places = ours.input_columns.sample(20, 5)

    mean, spread = theirs.predict(places, return_std=True)

    assert ours.predict(places) == pytest.approx(ours.mean + ours.std * mean, abs=1e-7)
    of_one, sure = ours.mean_and_std(places[:1])
    noiseless = math.sqrt(spread[0] ** 2 - ours.scale * (ours.noise + 1e-8))
    assert of_one == pytest.approx(float(ours.predict(places[:1])[0]))
    assert sure == pytest.approx(ours.std * noiseless, rel=1e-5)


def test_the_fit_is_at_least_as_likely_as_scikit_learns() -> None:
    rows, costs = drawn(30, noise=0.1)
    ours = fit_surrogate(input_columns(ABC, rows), rows, costs)
    wanted = (np.array(costs) - ours.mean) / ours.std
    kernel = ConstantKernel(ours.scale, (1e-3, 1e3)) * RBF(ours.lengths, (0.05, 30.0)) + WhiteKernel(
        ours.scale * ours.noise, (1e-6, 10.0)
    )
    theirs = GaussianProcessRegressor(kernel, n_restarts_optimizer=0).fit(ours.inputs, wanted)

    start = theirs.log_marginal_likelihood(theirs.kernel.theta)
    assert start > theirs.log_marginal_likelihood_value_ - 1.0, "only the mild prior on lengths holds it back"


def test_what_it_explains_is_the_leave_one_out_error_worked_out_one_by_one() -> None:
    rows, costs = drawn(20, noise=0.2)
    ours = fit_surrogate(input_columns(ABC, rows), rows, costs)
    wanted = (np.array(costs) - ours.mean) / ours.std
    kernel = ConstantKernel(ours.scale) * RBF(ours.lengths) + WhiteKernel(ours.scale * (ours.noise + 1e-8))
    misses = []
    for at in range(len(rows)):
        rest = [place for place in range(len(rows)) if place != at]
        model = GaussianProcessRegressor(kernel, optimizer=None).fit(ours.inputs[rest], wanted[rest])
        misses.append(wanted[at] - model.predict(ours.inputs[[at]])[0])

    assert ours.explained == pytest.approx(1 - np.mean(np.square(misses)), abs=1e-6)


def test_shares_of_the_variance_are_those_of_calculus(surface: Surrogate) -> None:
    # var(a) = 1/12, var(2b) = 4/12, var of the product term = 16/144
    parts = {"a": 1 / 12, "b": 4 / 12, "ab": 16 / 144}
    whole = sum(parts.values())

    found = variance_shares(surface, draws=8192)

    assert found.first_order == pytest.approx((parts["a"] / whole, parts["b"] / whole, 0.0), abs=0.03)
    assert found.total == pytest.approx(
        ((parts["a"] + parts["ab"]) / whole, (parts["b"] + parts["ab"]) / whole, 0.0), abs=0.03
    )
    assert found.second_order[0, 1] == pytest.approx(parts["ab"] / whole, abs=0.03)
    assert all(found.second_order[pair] < 0.02 for pair in combinations(range(3), 2) if pair != (0, 1))


def test_the_order_of_importance_is_that_of_optunas_fanova(surface: Surrogate) -> None:
    rows, costs = drawn(60)
    study = optuna.create_study()
    space = {one.name: FloatDistribution(0.0, 1.0) for one in ABC}
    for row, value in zip(rows, costs, strict=True):
        study.add_trial(create_trial(params=row, distributions=space, value=value))

    theirs = optuna.importance.get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))

    found = variance_shares(surface).first_order
    assert list(theirs) == ["b", "a", "c"]
    assert found[1] > found[0] > found[2]
    assert found[1] / sum(found) == pytest.approx(theirs["b"], abs=0.15)


def test_partial_dependence_is_the_mean_over_the_others(surface: Surrogate) -> None:
    places, means, spreads = partial_dependence(surface, 1, draws=512)

    wanted = 0.5 + 2 * places  # the product term has mean 0
    assert means - means.mean() == pytest.approx(wanted - wanted.mean(), abs=0.08)
    assert (spreads >= 0).all() and (spreads < 0.2).all()


def test_values_without_an_order_and_settings_that_are_absent_have_a_place() -> None:
    settings = [setting_from_values("optimizer", ["sgd", "adamw"]), Setting("optimizer.momentum", 0.5, 0.99)]
    dice = random.Random(0)
    rows = [
        {"optimizer": "sgd", "optimizer.momentum": dice.uniform(0.5, 0.99)} if at % 2 else {"optimizer": "adamw"}
        for at in range(24)
    ]
    costs = [1.0 + (row["optimizer"] == "sgd") + dice.gauss(0, 0.01) for row in rows]

    surface = fit_surrogate(input_columns(settings, rows), rows, costs)
    _, means, _ = partial_dependence(surface, 0)

    assert surface.input_columns.labels[0] == ("adamw", "sgd")
    assert "(absent)" in surface.input_columns.labels[1]
    assert means[1] - means[0] > 0.3


def test_one_diverged_trial_does_not_bend_the_surface() -> None:
    rows, costs = drawn(60)
    spoiled = [1e6, *costs[1:]]

    assert fit_surrogate(input_columns(ABC, rows), rows, spoiled).explained > 0.8


def test_too_few_or_equal_trials_are_refused() -> None:
    rows, costs = drawn(3)
    with pytest.raises(ValueError, match="four trials"):
        fit_surrogate(input_columns(ABC, rows), rows, costs)
    with pytest.raises(ValueError, match="different scores"):
        fit_surrogate(input_columns(ABC, rows * 3), rows * 3, [1.0] * 9)


def test_ped_anova_is_what_optuna_says_of_the_study_itself() -> None:
    rows, costs = drawn(80)
    found = [Configuration(row, (value,), (at,)) for at, (row, value) in enumerate(zip(rows, costs, strict=True))]
    study = optuna.create_study()
    space = {one.name: FloatDistribution(0.0, 1.0) for one in ABC}
    for row, value in zip(rows, costs, strict=True):
        study.add_trial(create_trial(params=row, distributions=space, value=value))

    theirs = optuna.importance.get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=0.1))

    assert ped_anova_importance(ABC, found) == pytest.approx(dict(theirs))
    assert ped_anova_importance(ABC, found[:5]) == {}
