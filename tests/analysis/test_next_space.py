"""Borders, cliffs and what to search next; on a made-up fine-tuning, following the advice beats staying."""

import importlib
import math
import random
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest

from support.paths import ROOT
from tunelab.analysis.configurations import (
    Configuration,
    Setting,
    Trial,
    group_by_configuration,
    seed_noise,
    setting_from_values,
)
from tunelab.analysis.importance import isolate_setting, ped_anova_importance, variance_shares
from tunelab.analysis.next_space import SettingChange, find_boundary_hits, find_failure_limits, suggest_next_space
from tunelab.analysis.surrogate import fit_surrogate, input_columns

RATE = Setting("lr", 1e-5, 1e-3, log=True)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The made-up fine-tuning of `bench/search`."""
    monkeypatch.syspath_prepend(ROOT / "bench" / "search")
    return importlib.import_module("surface")


def trials_of(values: Sequence[tuple[Any, float | None]], name: str = "lr") -> list[Trial]:
    """A trial for each value of one setting; one without a score has diverged."""
    return [
        Trial(
            at, "failed" if cost is None else "complete", {name: value}, cost, kind="diverged" if cost is None else ""
        )
        for at, (value, cost) in enumerate(values)
    ]


def spread(count: int = 16) -> list[float]:
    """Rates over the whole range, evenly by their logarithm."""
    return [RATE.from_unit((at + 0.5) / count) for at in range(count)]


def test_a_best_in_the_middle_is_at_no_border_and_one_at_the_end_is() -> None:
    middle = group_by_configuration(trials_of([(lr, (math.log10(lr) + 4) ** 2) for lr in spread()]), lower=True)
    rising = group_by_configuration(trials_of([(lr, -math.log10(lr)) for lr in spread()]), lower=True)

    assert find_boundary_hits([RATE], middle) == []
    assert [(edge.setting.name, edge.side) for edge in find_boundary_hits([RATE], rising)] == [("lr", "high")]
    falling = group_by_configuration(trials_of([(lr, math.log10(lr)) for lr in spread()]), lower=True)
    assert [edge.side for edge in find_boundary_hits([RATE], falling)] == ["low"]


def test_one_lucky_trial_at_a_border_is_no_border() -> None:
    lucky = [(lr, (math.log10(lr) + 4) ** 2) for lr in spread()]
    lucky[-1] = (lucky[-1][0], -0.1)

    assert find_boundary_hits([RATE], group_by_configuration(trials_of(lucky), lower=True)) == []


def test_higher_is_better_turns_the_border_round() -> None:
    rising = trials_of([(lr, math.log10(lr)) for lr in spread()])

    assert [edge.side for edge in find_boundary_hits([RATE], group_by_configuration(rising, lower=False))] == ["high"]


def test_the_first_and_last_of_listed_values_are_borders() -> None:
    listed = setting_from_values("batch_size", [8, 16, 32, 64])
    found = group_by_configuration(trials_of([(8, 1.0), (16, 2.0), (32, 3.0), (64, 4.0)], "batch_size"), lower=True)

    assert [edge.side for edge in find_boundary_hits([listed], found)] == ["low"]
    (step,) = suggest_next_space(
        [listed], found, find_boundary_hits([listed], found), [], weight={}, explained=0.0, legal={}
    )
    assert step.new_setting is not None and step.new_setting.values == (2, 4, 8)  # 16 was tried and is worse


def test_runs_that_break_next_to_the_best_are_a_cliff_and_far_ones_are_not() -> None:
    close = [(1e-5, 3.0), (1e-4, 2.0), (5e-4, 1.0), (7e-4, None), (9e-4, None)]
    far = [(1e-5, 3.0), (3e-5, 1.0), (2e-4, 2.0), (7e-4, None), (9e-4, None)]

    (cliff,) = find_failure_limits([RATE], trials_of(close), lower=True)

    assert (cliff.side, cliff.limit, cliff.failures) == ("above", 5e-4, 2)
    assert find_failure_limits([RATE], trials_of(far), lower=True) == []
    assert find_failure_limits([RATE], trials_of(close[:4]), lower=True) == [], "one broken run may be bad luck"


def test_a_border_moves_by_its_own_width_and_stops_where_what_is_legal_ends() -> None:
    rising = group_by_configuration(trials_of([(lr, -math.log10(lr)) for lr in spread()]), lower=True)
    at = find_boundary_hits([RATE], rising)

    (free,) = suggest_next_space([RATE], rising, at, [], weight={}, explained=0.0, legal={})
    (bound,) = suggest_next_space([RATE], rising, at, [], weight={}, explained=0.0, legal={"lr": (0.0, 1e-3)})

    assert free.action == "widen" and free.new_setting is not None
    assert free.new_setting.high > 1e-2 and free.new_setting.low < max(spread()) < free.new_setting.high
    assert math.log10(free.new_setting.high / free.new_setting.low) == pytest.approx(2.0, abs=0.1)
    assert bound.action == "bound" and bound.new_setting == RATE


def test_a_border_with_a_cliff_behind_it_does_not_move() -> None:
    rows = [*((lr, -math.log10(lr)) for lr in spread()[:-2]), (9e-4, None), (9.5e-4, None)]
    found = group_by_configuration(trials_of(rows), lower=True)
    wall = find_failure_limits([RATE], trials_of(rows), lower=True)

    (step,) = suggest_next_space(
        [RATE], found, find_boundary_hits([RATE], found), wall, weight={}, explained=0.0, legal={}
    )

    assert wall and step.action != "widen"


def test_isolation_takes_the_best_over_the_others() -> None:
    optimizer = setting_from_values("optimizer", ["sgd", "adamw"])
    found = [
        Configuration({"optimizer": name, "lr": lr}, (abs(math.log10(lr) - best) + base,), (at,))
        for at, (name, lr, best, base) in enumerate(
            [("sgd", 1e-1, -1, 0.5), ("sgd", 1e-3, -1, 0.5), ("adamw", 1e-3, -3, 0.2), ("adamw", 1e-1, -3, 0.2)]
        )
    ]

    stretches = {one.label: one for one in isolate_setting(optimizer, found)}

    assert stretches["sgd"].best == pytest.approx(0.5) and stretches["sgd"].point.params["lr"] == 1e-1
    assert stretches["adamw"].best == pytest.approx(0.2) and stretches["adamw"].point.params["lr"] == 1e-3
    assert stretches["sgd"].low == stretches["sgd"].best < stretches["sgd"].high


def test_the_noise_of_seeds_is_the_pooled_standard_deviation() -> None:
    found = [
        Configuration({"lr": 1}, (1.0, 3.0), (0, 1)),
        Configuration({"lr": 2}, (5.0, 5.0, 8.0), (2, 3, 4)),
        Configuration({}, (1.0,), (5,)),
    ]

    assert seed_noise(found) == pytest.approx(math.sqrt((2.0 + 6.0) / 3))
    assert math.isnan(seed_noise(found[2:]))


def searched(made: ModuleType, settings: Sequence[Setting], many: int, dice: random.Random, seed: int) -> list[Trial]:
    """Random trials within the settings' ranges."""
    found = []
    for at in range(many):
        params: dict[str, Any] = {}
        for one in settings:
            value = one.from_unit(dice.random())
            params[one.name] = round(value) if one.integer else value
        losses = made.curve(params, seed + at)
        whole = len(losses) == made.EPOCHS
        found.append(
            Trial(
                at,
                "complete" if whole else "failed",
                params,
                min(losses) if whole else None,
                kind="" if whole else "diverged",
            )
        )
    return found


def test_following_the_advice_twice_reaches_a_better_optimum_than_staying(made: ModuleType) -> None:
    # Given a space whose rates end ten times below the best one
    many, seeds = 30, range(4)
    first = [
        Setting("lr", 1e-5, 3e-4, log=True), Setting("batch", 16, 256, log=True, integer=True),
        Setting("decay", 1e-4, 1.0, log=True), Setting("warmup", 0.0, 0.3), Setting("dropout", 0.0, 0.5),
    ]  # fmt: skip
    stayed, followed = [], []
    for seed in seeds:
        # When one search stays there for three budgets, and another moves as advised after the first and the second
        whole = group_by_configuration(searched(made, first, 3 * many, random.Random(seed), seed), lower=True)
        stayed.append(made.final(min(whole, key=lambda point: point.cost).params))
        settings, dice, best = list(first), random.Random(seed), []
        for _ in range(3):
            trials = searched(made, settings, many, dice, seed)
            found = group_by_configuration(trials, lower=True)
            best += found
            rows = [point.params for point in found]
            fitted = fit_surrogate(input_columns(settings, rows), rows, [point.cost for point in found])
            top = ped_anova_importance(settings, found)
            weight = {
                one.name: max(share, top[one.name])
                for one, share in zip(settings, variance_shares(fitted, draws=512).total, strict=True)
            }
            steps = suggest_next_space(
                settings, found, find_boundary_hits(settings, found), find_failure_limits(settings, trials, lower=True),
                weight=weight, explained=fitted.explained, legal={"dropout": (0.0, 0.99), "warmup": (0.0, 0.5)},
            )  # fmt: skip
            settings = [
                step.new_setting
                if step.new_setting
                else Setting(step.setting.name, float(str(step.value)), float(str(step.value)))
                for step in steps
            ]
        followed.append(made.final(min(best, key=lambda point: point.cost).params))

    # Then moving won every time, and by far
    assert all(moved < stay for moved, stay in zip(followed, stayed, strict=True)), (followed, stayed)
    assert sum(stayed) - sum(followed) > 0.1 * len(seeds), (followed, stayed)


def next_of(setting: Setting, costs: dict[float, Sequence[float]]) -> SettingChange:
    """What is to be done with the one setting of a study: costs over seeds by value."""
    points = [
        Configuration({setting.name: value}, tuple(each), (at,)) for at, (value, each) in enumerate(costs.items())
    ]
    hits = find_boundary_hits([setting], points)
    (step,) = suggest_next_space(
        [setting], points, hits, [], weight={}, explained=0.0, legal={}, noise=seed_noise(points)
    )
    return step


def test_the_best_of_a_coarse_list_gets_a_finer_one_where_its_neighbours_are_worse_beyond_noise() -> None:
    listed = setting_from_values("lr", [1e-4, 1e-3, 1e-2, 1e-1])
    clear = {1e-4: (2.0, 2.1), 1e-3: (1.0, 1.1), 1e-2: (3.0, 3.1), 1e-1: (9.0, 9.1)}
    noisy = {value: (low, low + 1.5) for value, (low, _) in clear.items()}
    single = {value: (low,) for value, (low, _) in clear.items()}

    step = next_of(listed, clear)

    assert step.new_setting is not None and step.new_setting.values == (0.00032, 1e-3, 0.0032)
    for unsure in (noisy, single):
        assert next_of(listed, unsure).action == "keep" and "beyond noise" in next_of(listed, unsure).reason


@pytest.mark.parametrize(
    ("values", "best", "proposed"),
    [
        ([8, 16, 32, 64], 32, None),  # no power of two between neighbours
        ([4, 16, 64, 256], 16, (8, 16, 32)),
        ([1, 2, 4, 8], 8, (8, 16, 32)),
        ([1, 2, 4, 8], 1, None),  # no whole number below 1
        ([16, 64, 256, 1024], 16, (1, 4, 16)),
        ([0.0625, 0.125, 0.25, 0.5], 0.0625, (0.015625, 0.03125, 0.0625)),
        ([1, 2, 3, 4], 4, (4, 5, 6)),  # whole numbers, no powers of two
        ([10, 20, 40, 80], 20, (14, 20, 28)),
    ],
)
def test_a_list_goes_on_by_the_numbers_that_it_was_made_of(
    values: list[float], best: float, proposed: tuple[float, ...] | None
) -> None:
    cost = {value: 1.0 + abs(math.log2(value) - math.log2(best)) for value in values}
    step = next_of(setting_from_values("x", values), {value: (at, at + 0.01) for value, at in cost.items()})

    assert (step.new_setting.values if step.new_setting and step.action not in ("keep", "bound") else None) == proposed
    assert proposed is None or not {value for value in proposed if value != best} & {*values}


def test_a_border_within_noise_leaves_a_list_as_it_is_and_a_trend_or_a_clear_gap_moves_it() -> None:
    batch = setting_from_values("batch_size", [8, 16, 32, 64])
    flat = {8: (1.1,), 16: (1.3,), 32: (1.2,), 64: (1.0,)}
    gap = {8: (1.2, 1.21), 16: (1.3, 1.31), 32: (1.2, 1.21), 64: (1.0, 1.01)}
    trend = {8: (1.4,), 16: (1.3,), 32: (1.2,), 64: (1.0,)}
    assert next_of(batch, flat).action == "keep" and "not worse beyond noise" in next_of(batch, flat).reason
    for clear in (gap, trend):
        step = next_of(batch, clear)
        assert step.new_setting is not None and step.new_setting.values == (64, 128, 256)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "setting",
    [
        RATE,
        Setting("batch", 8.0, 256.0, log=True, integer=True),
        Setting("layers", 1.0, 12.0, integer=True),
        Setting("d", 0.0, 0.5),
    ],
    ids=lambda setting: setting.name,
)
def test_a_proposed_range_holds_the_best_and_leaves_out_only_what_is_worse_beyond_noise(
    setting: Setting, seed: int
) -> None:
    dice = random.Random(seed)
    for noise in (0.001, 0.5):
        centre, costs = dice.uniform(0.3, 0.7), dict[float, tuple[float, float]]()
        for _ in range(30):
            value = setting.from_unit(dice.random())
            value = round(value) if setting.integer else value
            cost = (setting.to_unit(value) - centre) ** 2
            costs[value] = (cost + dice.gauss(0, noise), cost + dice.gauss(0, noise))
        step = next_of(setting, costs)
        best = min(costs, key=lambda value: sum(costs[value]))
        if step.new_setting is None or step.action == "keep":
            continue
        assert step.new_setting.low <= best <= step.new_setting.high
        if step.action == "narrow":
            left_out = [value for value in costs if not step.new_setting.low <= value <= step.new_setting.high]
            assert all(sum(costs[value]) > sum(costs[best]) for value in left_out)
            assert noise < 0.1
        if setting.name == "batch":
            assert math.log2(step.new_setting.low).is_integer() and math.log2(step.new_setting.high).is_integer()
        if setting.integer:
            assert step.new_setting.low.is_integer() and step.new_setting.high.is_integer()


def test_a_range_of_one_outcome_is_left_as_it_is() -> None:
    step = next_of(RATE, {lr: (1.0 + 0.001 * at,) for at, lr in enumerate(spread())})
    assert step.action in ("keep", "widen")
    costs = {lr: (1.0, 1.2) for lr in spread()}
    costs[spread()[8]] = (0.99, 1.19)
    assert next_of(RATE, costs).action == "keep"


def test_a_range_ends_where_every_run_broke() -> None:
    rows = [*((lr, abs(math.log10(lr) + 3.6)) for lr in spread()[:-3]), (6e-4, None), (8e-4, None), (9.5e-4, None)]
    points = group_by_configuration(trials_of(rows), lower=True)
    walls = find_failure_limits([RATE], trials_of(rows), lower=True)
    (step,) = suggest_next_space([RATE], points, [], walls, weight={}, explained=0.0, legal={})
    assert step.action == "narrow" and "broke" in step.reason
    assert step.new_setting is not None and max(spread()[:-3]) <= step.new_setting.high < 6e-4


@pytest.mark.parametrize(
    ("gap", "reason"),
    [
        (1.0, "worse beyond noise here: b; leave out what stays so with new seeds"),
        (0.0, "no value is worse beyond noise"),
    ],
)
def test_a_choice_that_is_kept_says_what_is_known_of_its_values(gap: float, reason: str) -> None:
    dice = random.Random(0)
    trials = trials_of([("ab"[at % 2], dice.gauss(gap * (at % 2), 0.05)) for at in range(16)], name="optimizer")
    ranked = group_by_configuration(trials, lower=True)
    choice = setting_from_values("optimizer", ["a", "b"])

    step = suggest_next_space([choice], ranked, [], [], weight={}, explained=0.0, legal={}, noise=0.05)[0]

    assert (step.action, step.reason) == ("keep", reason)
