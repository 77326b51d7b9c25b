"""The effect of a setting: seeds averaged, nuisances at their best, nothing stated that the numbers do not show."""

import math
from typing import Any

import pytest
from scipy import stats

from tunelab.analysis.setting_effect import ValueResult, describe_effect, differ_significantly, scores_by_value
from tunelab.report.effect_chart import effect_chart


def trial(value: float | None, state: str = "complete", **params: Any) -> dict[str, Any]:
    return {"state": state, "value": value, "params": params}


def grid(effect: dict[Any, float], noise: float = 0.01) -> list[dict[str, Any]]:
    """Three seeds at every value."""
    return [
        trial(mean + noise * (seed - 1), lr=value, seed=seed) for value, mean in effect.items() for seed in range(3)
    ]


def test_the_mean_and_the_spread_are_over_the_seeds() -> None:
    (found,) = scores_by_value(grid({0.1: 1.0}, noise=0.5), "lr", None, lower=True).values()

    assert found == [ValueResult(0.1, (0.5, 1.0, 1.5), {}, 0, every_score=(0.5, 1.0, 1.5))]
    assert (found[0].mean, found[0].spread) == (1.0, 0.5)


def test_values_stand_in_their_order_and_names_as_they_came() -> None:
    numbers = scores_by_value(grid({1e-2: 1.0, 1e-3: 2.0, 3e-3: 3.0}), "lr", None, lower=True)[None]
    names = scores_by_value(
        [trial(1.0, optimizer=name, seed=0) for name in ("sgd", "adamw")], "optimizer", None, lower=True
    )[None]

    assert [result.value for result in numbers] == [1e-3, 3e-3, 1e-2]
    assert [result.value for result in names] == ["sgd", "adamw"]


@pytest.mark.parametrize(("lower", "rate"), [(True, 0.1), (False, 0.2)])
def test_each_value_is_judged_at_its_own_best_nuisance(lower: bool, rate: float) -> None:
    # Given a batch size whose result depends on the rate
    trials = [trial(rate * 10 + seed, batch_size=8, lr=rate, seed=seed) for rate in (0.1, 0.2) for seed in (0, 1)]

    # When its effect is read
    (result,) = scores_by_value(trials, "batch_size", None, lower=lower)[None]

    # Then the better rate stands for it, over its seeds
    assert result.nuisance_values == {"lr": rate} and len(result.scores) == 2


def test_a_best_rate_at_the_end_of_those_tried_is_told() -> None:
    scores = {0.1: 3.0, 0.2: 2.0, 0.4: 1.0}  # still falling at 0.4
    inside = {0.1: 3.0, 0.2: 1.0, 0.4: 2.0}
    trials = [
        trial(score + seed / 100, batch_size=size, lr=rate, seed=seed)
        for size, table in ((8, scores), (16, {r: s * 2 for r, s in inside.items()}))
        for rate, score in table.items()
        for seed in range(3)
    ]
    found = scores_by_value(trials, "batch_size", None, lower=True)
    assert [result.nuisances_at_border for result in found[None]] == [("lr",), ()]
    told = describe_effect("batch_size", "loss", found, None, lower=True)
    assert "The best lr was an end of those tried at batch_size=8; a wider range may change this." in told


def test_a_nuisance_that_lost_a_seed_does_not_win_by_having_fewer() -> None:
    trials = [trial(1.0, batch_size=8, lr=0.1, seed=0), trial(None, "failed", batch_size=8, lr=0.1, seed=1)]
    trials += [trial(2.0, batch_size=8, lr=0.2, seed=seed) for seed in (0, 1)]

    (result,) = scores_by_value(trials, "batch_size", None, lower=True)[None]

    assert result.nuisance_values == {"lr": 0.2} and result.failed_trials == 1


def test_a_value_at_which_every_run_diverged_stays_in_sight() -> None:
    trials = [*grid({0.1: 1.0}), *(trial(None, "failed", lr=9.0, seed=seed) for seed in range(3))]

    found = scores_by_value(trials, "lr", None, lower=True)

    assert math.isnan(found[None][1].mean)
    assert "None came through at 9 (3 lost)" in describe_effect("lr", "val/loss", found, None, lower=True)


def test_a_difference_counts_where_welchs_test_says_so() -> None:
    one, other = ValueResult(1, (1.0, 1.1, 0.9), {}), ValueResult(2, (1.3, 1.45, 1.2), {})
    p = stats.ttest_ind(one.scores, other.scores, equal_var=False).pvalue

    assert differ_significantly(one, other) == (p < 0.05) and p < 0.05
    assert not differ_significantly(one, ValueResult(2, (1.1, 1.4, 0.9), {}))
    assert not differ_significantly(
        ValueResult(1, (1.0,), {}), ValueResult(2, (9.0,), {})
    )  # one seed shows no noise, so nothing beats it
    assert differ_significantly(ValueResult(1, (1.0, 1.0), {}), ValueResult(2, (2.0, 2.0), {}))


def test_a_flat_line_is_told_as_no_effect() -> None:
    words = describe_effect(
        "lr", "val/loss", scores_by_value(grid({0.1: 1.0, 0.2: 1.001}), "lr", None, lower=True), None, lower=True
    )

    assert words.startswith("no effect of lr on val/loss beyond the seeds' noise")


def test_one_seed_at_a_value_is_told_and_never_called_no_effect() -> None:
    alone = [ValueResult(rate, (score,), {}) for rate, score in ((0.1, 1.0), (0.2, 0.5), (0.4, 2.0))]

    said = describe_effect("lr", "val/loss", {None: alone}, None, lower=True)

    assert said.startswith("val/loss runs from 0.5 at lr=0.2 to 2 at 0.4, but with one seed")
    assert "nan" not in said and "no effect" not in said


def test_a_value_that_lost_seeds_is_told_and_does_not_win_by_the_one_that_is_left() -> None:
    # Given a rate of which one lucky seed of three came through, and one that lost one of three
    found = [
        ValueResult(0.1, (1.0, 1.01, 0.99), {}),
        ValueResult(0.2, (0.5,), {}, 2),
        ValueResult(0.4, (2.0, 2.1), {}, 1),
    ]

    # When the effect is described
    said = describe_effect("lr", "val/loss", {None: found}, None, lower=True)

    # Then it is judged where there is something to judge by, and the losses are reported
    assert said.startswith("val/loss is best at lr=0.1, 1 ± 0.01; every other value is worse beyond the noise")
    assert "2 to 3 seeds each" in said
    assert "Some runs were lost at 0.2 (2), 0.4 (1)." in said
    assert "One seed came through at 0.2, too few to judge." in said


@pytest.mark.parametrize(("lower", "best", "worst"), [(True, "0.1", "0.3"), (False, "0.3", "0.1")])
def test_best_and_worst_follow_the_direction_of_the_score(lower: bool, best: str, worst: str) -> None:
    found = scores_by_value(grid({0.1: 1.0, 0.2: 1.005, 0.3: 3.0}), "lr", None, lower=lower)
    words = describe_effect("lr", "score", found, None, lower=lower)

    assert f"best at lr={best}" in words and f"{worst} is the worst" in words
    assert ("0.2 cannot be told from it" in words) == lower


def test_two_lines_are_compared_value_by_value() -> None:
    trials = [
        trial(mean + 0.01 * seed, model=model, limit=limit, seed=seed)
        for model, limit, mean in [("a", 1, 0.9), ("a", 2, 0.95), ("b", 1, 0.1), ("b", 2, 0.95)]
        for seed in range(3)
    ]

    found = scores_by_value(trials, "limit", "model", lower=False)
    words = describe_effect("limit", "val/exact_match", found, "model", lower=False)

    assert list(found) == ["a", "b"]
    assert "With model=b:" in words
    assert "model=a has the better val/exact_match at 1 of 2 values, model=b at 0" in words


def test_numbers_are_drawn_as_a_line_and_names_as_bars() -> None:
    results = scores_by_value(grid({1e-3: 1.0, 1e-1: 2.0}), "lr", None, lower=True)
    line = effect_chart("lr", "val/loss", results, None, lower=True)
    bars = effect_chart(
        "optimizer",
        "val/loss",
        scores_by_value([trial(1.0, optimizer=o, seed=0) for o in "ab"], "optimizer", None, lower=True),
        None,
        lower=True,
    )

    assert line.startswith("<svg") and "val/loss by lr" in line
    assert bars.startswith("<svg") and "<rect" in bars


def test_a_drawing_shows_every_trial_and_the_values_at_which_all_broke() -> None:
    # Given two nuisance settings with three seeds each, all of which broke at the largest rate
    trials = [
        {"params": {"lr": lr, "optimizer": name, "seed": seed}, "value": base + lr + 0.1 * seed,
         "state": "failed" if lr == 1.0 else "complete"}
        for lr in (0.01, 0.1, 1.0) for name, base in (("sgd", 1.0), ("adamw", 2.0)) for seed in range(3)
    ]  # fmt: skip

    # When they are drawn, with and without a line for each
    for by in (None, "optimizer"):
        results = scores_by_value(trials, "lr", by, lower=True)
        svg = effect_chart("lr", "val/loss", results, by, lower=True, searched=(0.001, 1.0))

        # Then each is a point, one is the best, and the axis has the range and a cross
        assert svg.count('r="2.6"') == 12 and svg.count('r="6"') == 1 and ">0.001<" in svg
        assert svg.count("m-3.5 -3.5l7 7m0 -7l-7 7") == (1 if by is None else 2)
    bars = effect_chart(
        "optimizer", "val/loss", scores_by_value(trials, "optimizer", None, lower=True), None, lower=True
    )
    assert bars.count('class="paper" stroke') == 12


def test_two_seeds_are_points_without_a_band() -> None:
    for seeds, band in ((2, False), (3, True)):
        trials = [
            {"params": {"lr": lr, "seed": seed}, "value": lr + 0.1 * seed, "state": "complete"}
            for lr in (0.1, 0.2, 0.3)
            for seed in range(seeds)
        ]
        svg = effect_chart("lr", "val/loss", scores_by_value(trials, "lr", None, lower=True), None, lower=True)
        assert ('fill-opacity=".16"' in svg) == band
