"""Verdicts on curves: noise is not taken for a course, nor a success for a failure.  Without a run."""

import random
from typing import Any

import pytest

from tunelab.analysis.doctor import run_doctor
from tunelab.analysis.run_signals import RunSignals


def told(curves: list[dict[str, float]], settings: dict[str, Any] | None = None, **more: Any) -> set[str]:
    """The verdicts on some curves."""
    rows = [{"step": 10 * place, "epoch": 0, **row} for place, row in enumerate(curves)]
    return {found.verdict for found in run_doctor(RunSignals(rows, settings or {}, **more))}


def jumping(points: int, move: float, seed: int, fall: float = 0.0) -> list[dict[str, float]]:
    """A loss of about 1.4 that jumps by a third from step to step, and falls by so much over the run."""
    draw = random.Random(seed)
    return [
        {"train/loss": 1.4 - fall * place / points + draw.gauss(0, 0.4), "train/update_ratio": move}
        for place in range(points)
    ]


def test_a_loss_that_only_jumps_has_too_low_a_rate_and_never_too_high_a_one() -> None:
    verdicts = [told(jumping(points, 1e-6, seed)) for points in (10, 28, 100) for seed in range(30)]

    assert not any("rate_too_high" in found for found in verdicts)
    assert sum("rate_too_low" in found for found in verdicts) > 0.9 * len(verdicts)


def test_a_loss_that_only_jumps_is_seldom_called_one_that_came_back() -> None:
    verdicts = [told(jumping(points, 1e-3, seed)) for points in (10, 28, 100) for seed in range(30)]

    assert sum("rate_too_high" in found for found in verdicts) <= 0.05 * len(verdicts)


def test_a_loss_that_comes_back_by_more_than_it_jumps_is_told() -> None:
    curves = jumping(40, 1e-3, 0)
    for place, row in enumerate(curves):
        row["train/loss"] += 3 * abs(place - 20) / 20  # down to the middle of the run, and up again

    assert "rate_too_high" in told(curves)


@pytest.mark.parametrize(("kind", "move", "high"), [
    ("full", 0.03, False), ("full", 0.4, True), ("lora", 0.24, False), ("lora", 1.2, True),
])  # fmt: skip
def test_one_step_that_replaces_the_weights_is_told_and_an_adapter_may_grow_from_nothing(
    kind: str, move: float, high: bool
) -> None:
    curves = [{"train/loss": 2.0 / (place + 1), "train/update_ratio": move / (place + 1)} for place in range(12)]

    assert ("rate_too_high" in told(curves, {"adapter": {"kind": kind}})) == high


@pytest.mark.parametrize(("recall", "found"), [(0.5, True), (0.97, False)])
def test_uneven_labels_are_no_fault_where_the_rare_ones_are_found_as_often(recall: float, found: bool) -> None:
    data = {"labels": {"train": {"ham": 950, "spam": 50}, "validation": {"ham": 95, "spam": 5}}}
    curves = [{"val/loss": 0.1, "val/recall": recall, "val/accuracy": 0.97}]

    assert ("imbalanced_classes" in told(curves, data=data)) == found


@pytest.mark.parametrize("recall", [0.0, 0.01])
def test_a_model_of_several_labels_that_finds_none_is_told(recall: float) -> None:
    curves = [{"val/loss": 0.2, "val/recall": recall, "val/accuracy": 0.7} for _ in range(3)]

    assert ("majority_class" in told(curves, {"data": {"multilabel": True}})) == (recall == 0)


def validated(losses: list[float]) -> list[dict[str, float]]:
    """A finished run of a hundred steps that logs its loss at the first and validates at even distances."""
    return [{"train/loss": 2.0}, *({"val/loss": loss} for loss in losses)]


@pytest.mark.parametrize("validations", [3, 5, 7, 9, 20])
def test_a_straight_fall_to_the_end_is_under_trained_however_often_it_was_validated(validations: int) -> None:
    straight = [2.0 - 1.5 * (place + 1) / validations for place in range(validations)]
    settled = [0.5 + 1.5 * 0.02 ** ((place + 1) / validations) for place in range(validations)]

    assert "under_trained" in told(validated(straight), status="finished")
    assert "under_trained" not in told(validated(settled), status="finished")


def test_two_validations_are_too_few_to_call_the_end_steep() -> None:
    assert "under_trained" not in told(validated([1.0, 0.8]), status="finished")
