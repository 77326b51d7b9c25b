"""Verdicts on the shape of a learning curve."""

import math

import numpy as np
import pytest

from tunelab.analysis.learning_curves import curve_noise, diagnose_curve

STEPS = [float(step) for step in range(10, 130, 10)]


def test_the_noise_of_a_straight_line_with_noise_is_the_noise() -> None:
    dice = np.random.default_rng(0)
    values = np.arange(4000) * 0.7 + dice.normal(0, 0.3, 4000)

    assert curve_noise(values.tolist()) == pytest.approx(0.3, rel=0.05)
    assert curve_noise([5.0, 4.0, 3.0, 2.0]) == pytest.approx(0)
    assert math.isnan(curve_noise([1.0, 2.0, 3.0]))


@pytest.mark.parametrize(
    ("costs", "losses", "kind"),
    [
        ([1 / step + max(0, step - 50) / 100 for step in STEPS], [1 / step for step in STEPS], "over-fitted"),
        ([1 / step + max(0, step - 50) / 100 for step in STEPS], [step for step in STEPS], "worsened"),
        ([2 - step / 100 for step in STEPS], [1 / step for step in STEPS], "improving"),
        ([1 + math.exp(-step / 8) for step in STEPS], [1 / step for step in STEPS], "settled"),
        ([step / 100 for step in STEPS], [1 / step for step in STEPS], "never better"),
    ],
)
def test_a_curve_is_judged_by_its_shape(costs: list[float], losses: list[float], kind: str) -> None:
    lower = diagnose_curve(STEPS, costs, STEPS, losses, lower=True)
    higher = diagnose_curve(STEPS, [-cost for cost in costs], STEPS, losses, lower=False)

    assert lower.shape == higher.shape == kind


def test_noise_alone_is_no_over_fitting() -> None:
    dice = np.random.default_rng(1)
    kinds = [
        diagnose_curve(STEPS, (1 + dice.normal(0, 0.1, 12)).tolist(), STEPS, STEPS[::-1], lower=True).shape
        for _ in range(50)
    ]

    assert kinds.count("over-fitted") < 15


def test_a_score_that_left_the_finite_numbers_is_told() -> None:
    found = diagnose_curve([1, 2, 3], [1.0, math.nan, 0.5], lower=True, name="val/loss")

    assert found.shape == "unknown"
    assert "val/loss was not finite at 1 of 3" in found.verdicts[0][1]


def test_two_validations_make_no_curve() -> None:
    assert diagnose_curve([1, 2], [1.0, 0.5], lower=True).shape == "unknown"
