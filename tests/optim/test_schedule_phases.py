"""Schedules in phases, and all schedules at their ends: against torch, transformers or the formula."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from math import cos, pi, sqrt
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau, StepLR
from transformers import (
    get_cosine_with_hard_restarts_schedule_with_warmup,
    get_polynomial_decay_schedule_with_warmup,
    get_wsd_schedule,
)

from support.tiny_runs import CONF, settings
from tunelab.config.schema import TargetConfig
from tunelab.optim.factory import averaging_notes, build_schedule, schedule_notes
from tunelab.optim.schedules import (
    Plateau,
    cosine,
    cosine_restarts,
    exponential,
    inverse_sqrt,
    one_cycle,
    polynomial,
    stepwise,
    wsd,
)

NAMES = sorted(path.stem for path in (CONF / "scheduler").glob("*.yaml"))
TOTAL, RISE = 50, 5
FALLS_TO_ITS_FLOOR = {"linear", "cosine", "cosine_restarts", "polynomial", "wsd", "one_cycle", "exponential"}


@cache
def block(name: str) -> TargetConfig:
    return settings(f"scheduler={name}").scheduler


def changed(target: TargetConfig, **arguments: Any) -> TargetConfig:
    """A target with other arguments."""
    return replace(target, arguments={**target.arguments, **arguments})


def notes(schedule: TargetConfig, total: int) -> list[str]:
    """Notes on a schedule under the optimizer that is taken by itself."""
    return schedule_notes(settings().optimizer, schedule, total)


def sgd(lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=lr)


def rates(schedule: Any, count: int = TOTAL) -> list[float]:
    """The rate of each step."""
    found = []
    for _ in range(count):
        found.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    return found


def ours(curve: Callable[..., float], **given: Any) -> list[float]:
    return rates(LambdaLR(sgd(), lambda step: curve(step, total=TOTAL, warmup=RISE, **given)))


def test_restarts_are_those_of_transformers() -> None:
    theirs = rates(get_cosine_with_hard_restarts_schedule_with_warmup(sgd(), RISE, TOTAL, num_cycles=3))
    assert ours(cosine_restarts, cycles=3)[RISE:] == pytest.approx(theirs[RISE:], abs=1e-9)


def test_a_power_is_that_of_transformers() -> None:
    theirs = rates(get_polynomial_decay_schedule_with_warmup(sgd(), RISE, TOTAL, lr_end=0.1, power=2.0))
    assert ours(polynomial, power=2.0, min_lr_ratio=0.1)[RISE:] == pytest.approx(theirs[RISE:], abs=1e-9)


@pytest.mark.parametrize(("shape", "decay_type"), [("linear", "linear"), ("cosine", "cosine"), ("sqrt", "1-sqrt")])
def test_warm_up_stable_decay_is_that_of_transformers(shape: str, decay_type: str) -> None:
    theirs = rates(
        get_wsd_schedule(
            sgd(),
            num_warmup_steps=RISE,
            num_stable_steps=35,
            num_decay_steps=10,
            decay_type=decay_type,
            min_lr_ratio=0.1,
        )
    )
    assert ours(wsd, decay=10, min_lr_ratio=0.1, shape=shape)[RISE:] == pytest.approx(theirs[RISE:], abs=1e-9)


def test_stairs_are_those_of_torch() -> None:
    mine = rates(LambdaLR(sgd(), lambda step: stepwise(step, total=TOTAL, every=10, factor=0.3)))
    assert mine == pytest.approx(rates(StepLR(sgd(), 10, 0.3)))


def test_stairs_are_counted_from_the_end_of_the_rise_and_stop_at_the_floor() -> None:
    theirs = rates(StepLR(sgd(), 10, 0.3), TOTAL - RISE)
    assert ours(stepwise, every=10, factor=0.3, min_lr_ratio=0.05)[RISE:] == pytest.approx(
        [max(0.05, rate) for rate in theirs]
    )
    assert min(theirs) < 0.05


def test_one_cycle_is_that_of_torch() -> None:
    steps = TOTAL + 1  # torch is at its end with its last step, we leave the rate there after it
    theirs = rates(OneCycleLR(sgd(), 1.0, steps, pct_start=16 / steps, div_factor=25, final_div_factor=1e9), TOTAL)
    mine = rates(LambdaLR(sgd(), lambda step: one_cycle(step, total=TOTAL, warmup=15, start=0.04)))
    assert mine == pytest.approx(theirs, abs=1e-6)


def test_curves_without_a_counterpart_follow_their_formula() -> None:
    assert exponential(30, total=TOTAL, warmup=0, min_lr_ratio=0.01) == pytest.approx(0.01 ** (30 / TOTAL))
    assert inverse_sqrt(21, total=TOTAL, warmup=RISE) == pytest.approx(sqrt(RISE / 21))
    assert inverse_sqrt(25, total=TOTAL, warmup=RISE, timescale=10) == pytest.approx(1 / sqrt(1 + 20 / 10))
    assert inverse_sqrt(30, total=30, warmup=RISE) == inverse_sqrt(30, total=300, warmup=RISE)
    assert (
        inverse_sqrt(8000, total=9000, warmup=RISE, min_lr_ratio=0.1)
        == 0.1
        > inverse_sqrt(8000, total=9000, warmup=RISE)
    )
    assert cosine_restarts(14, total=20, warmup=0, cycles=2) == pytest.approx((1 + cos(pi * 0.4)) / 2)


@pytest.mark.parametrize(("mode", "sign"), [("min", 1), ("max", -1)])
@pytest.mark.parametrize("cooldown", [0, 2])
def test_a_plateau_is_noticed_as_torch_notices_it(mode: str, sign: int, cooldown: int) -> None:
    scores = [sign * s for s in (5.0, 4.0, 4.0, 3.999, 4.1, 4.2, 3.0, 3.1, 3.2, 3.3, 3.4, 3.5, 2.0, float("nan"), 2.5)]
    optimizer = sgd()
    theirs = ReduceLROnPlateau(
        optimizer,
        mode=mode,
        factor=0.5,
        patience=1,
        threshold=0.01,
        threshold_mode="abs",
        cooldown=cooldown,
        min_lr=0.1,
    )  # type: ignore[arg-type]
    mine = Plateau(total=100, patience=1, factor=0.5, min_delta=0.01, cooldown=cooldown, min_lr_ratio=0.1)
    for score in scores:
        theirs.step(score)
        mine.observe(score, mode)
        assert mine(99) == pytest.approx(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("name", NAMES)
def test_every_file_rises_from_its_first_step_and_ends_where_it_says(name: str) -> None:
    curve = build_schedule(changed(block(name), warmup=0.1), total=40)
    heights = [curve(step) for step in range(41)]
    assert 0 < heights[0] <= 0.25
    assert max(heights) == pytest.approx(1.0)
    assert all(0 <= height <= 1 for height in heights)
    if name in FALLS_TO_ITS_FLOOR:
        floor = 0.01 if name == "exponential" else 0.0
        assert heights[40] == pytest.approx(floor, abs=1e-12)
        assert heights[39] > floor  # no step is wasted at the end


@pytest.mark.parametrize("name", sorted(FALLS_TO_ITS_FLOOR))
def test_the_last_step_leaves_the_rate_at_exactly_the_floor(name: str) -> None:
    for floor, warmup in ((0.1, 0), (0.07, 1), (0.3, 0.2), (0.1, 49)):
        curve = build_schedule(changed(block(name), min_lr_ratio=floor, warmup=warmup), total=TOTAL)
        assert curve(TOTAL) == floor < curve(TOTAL - 1)


def test_a_share_that_rounds_to_nothing_still_falls_by_the_end() -> None:
    assert wsd(2, total=2, decay=0.2, min_lr_ratio=0.1) == 0.1
    assert [wsd(step, total=2, decay=0) for step in range(3)] == [1, 1, 1]


def test_an_average_that_stands_in_place_of_the_optimizers_own_is_told() -> None:
    both = settings("optimizer=schedule_free_adamw", "regularization=swa")
    assert "swa_start=" in averaging_notes(both.optimizer, both.regularization)[0]
    assert averaging_notes(settings("optimizer=adamw").optimizer, both.regularization) == []
    assert averaging_notes(both.optimizer, settings().regularization) == []


def test_what_may_surprise_in_a_rate_is_told() -> None:
    both = settings("optimizer=schedule_free_adamw", "scheduler=cosine")
    assert "scheduler=cosine" in schedule_notes(both.optimizer, both.scheduler, TOTAL)[0]
    assert "never gets beyond 50%" in notes(changed(block("linear"), warmup=100), TOTAL)[0]
    assert notes(changed(block("linear"), warmup=TOTAL), TOTAL) == []
    high = one_cycle(TOTAL - 1, total=TOTAL, warmup=100)
    assert f"never gets beyond {high:.0%}" in notes(changed(block("one_cycle"), warmup=100), TOTAL)[0]
    assert 0.4 < high == max(one_cycle(step, total=TOTAL, warmup=100) for step in range(TOTAL)) < 0.6


def test_a_curve_that_is_not_the_one_asked_for_is_told() -> None:
    restarts, stairs = (changed(block(name), warmup=0) for name in ("cosine_restarts", "step"))
    # Seven restarts in three steps are none: the curve is that of one cosine
    assert [cosine_restarts(step, total=3, cycles=7) for step in range(3)] == [cosine(s, total=3) for s in range(3)]
    assert "take at most 1" in notes(changed(restarts, cycles=7), 3)[0]
    assert "take at most 25" in notes(changed(restarts, cycles=26), TOTAL)[0]
    assert notes(changed(restarts, cycles=25), TOTAL) == notes(changed(restarts, cycles=1), 1) == []
    assert "never drops" in notes(changed(stairs, every=TOTAL), TOTAL)[0]
    assert notes(changed(stairs, every=TOTAL - 1), TOTAL) == []


@pytest.mark.parametrize("name", NAMES)
def test_warm_up_may_be_steps_or_a_share(name: str) -> None:
    steps, share = (build_schedule(changed(block(name), warmup=value), total=40) for value in (8, 0.2))
    assert [steps(step) for step in range(40)] == [share(step) for step in range(40)]
