"""Verdicts on configurations, against SciPy and statsmodels' known answers."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tunelab.cli.confirm_command import describe_comparison
from tunelab.cli.main import main
from tunelab.runs.study_folder import StudyFolder
from tunelab.search.confirmation import compare_with_default, holm_correction, mean_interval, plan_reruns


def test_the_interval_is_students() -> None:
    scores = [0.71, 0.74, 0.69, 0.77, 0.73]
    low, high = stats.t.interval(0.95, 4, loc=np.mean(scores), scale=stats.sem(scores))

    found = mean_interval(scores)

    assert (found.mean, found.low, found.high, found.seeds) == pytest.approx((np.mean(scores), low, high, 5))


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_comparison_is_the_paired_t_test_and_a_gain_is_positive(mode: str) -> None:
    default, better = [1.0, 1.1, 0.9, 1.05], [0.8, 0.95, 0.72, 0.83]
    if mode == "max":
        default, better = better, default
    (found,) = compare_with_default([better], default, mode)

    assert found.p == pytest.approx(stats.ttest_rel(better, default).pvalue)
    assert found.gain == pytest.approx(abs(np.mean(better) - np.mean(default))) and found.gain > 0
    assert found.adopt


def test_a_gain_within_the_noise_is_not_proven() -> None:
    (found,) = compare_with_default([[0.98, 1.12, 0.88, 1.03]], [1.0, 1.1, 0.9, 1.05], "min")

    assert not found.adopt and found.low < 0 < found.high


def test_a_proven_loss_is_not_adopted() -> None:
    (found,) = compare_with_default([[2.0, 2.1, 1.91, 2.05]], [1.0, 1.1, 0.9, 1.05], "min")

    assert found.p < 0.001 and not found.adopt


def test_many_candidates_must_clear_a_higher_bar() -> None:
    default = [1.0, 1.1, 0.9, 1.05]
    borderline = [0.95, 1.08, 0.88, 1.0]  # p = 0.033 by itself
    hopeless = [[1.01, 1.09, 0.91, 1.04]] * 3

    assert compare_with_default([borderline], default, "min")[0].adopt
    assert not compare_with_default([borderline, *hopeless], default, "min")[0].adopt


def test_false_alarms_stay_below_five_in_a_hundred() -> None:
    dice = np.random.default_rng(0)
    alarms = sum(
        any(
            found.adopt
            for found in compare_with_default(dice.normal(size=(3, 5)).tolist(), dice.normal(size=5).tolist(), "max")
        )
        for _ in range(400)
    )

    assert alarms / 400 < 0.05  # two-sided tests of which only gains count


def test_equal_runs_prove_nothing_and_equal_gains_are_not_certain() -> None:
    assert compare_with_default([[1.0, 2.0, 3.0]], [1.0, 2.0, 3.0], "min")[0].p == 1
    assert compare_with_default([[0.1 + 0.2] * 3], [0.3] * 3, "max")[0].p == 1  # equal but for rounding
    for seeds in (2, 3, 5):
        (found,) = compare_with_default([[0.75] * seeds], [0.5] * seeds, "max")
        assert 0 < found.p < 1 and found.low < found.gain < found.high
        assert found.adopt == (seeds == 5)


def test_two_seeds_are_too_few_to_adopt_anything() -> None:
    (found,) = compare_with_default([[0.9, 0.9001]], [0.1, 0.1001], "max")
    assert not found.adopt and found.provable == math.inf and "too few" in describe_comparison(found)


def test_a_gain_that_is_not_proven_says_which_would_be() -> None:
    default = [1.0, 1.1, 0.9, 1.05]
    (found,) = compare_with_default([[0.98, 1.12, 0.88, 1.03]], default, "min")
    assert f"a gain of {found.provable:.2g} would be" in describe_comparison(found)
    more = [score - 1.01 * found.provable + found.gain for score in [0.98, 1.12, 0.88, 1.03]]
    less = [score - 0.97 * found.provable + found.gain for score in [0.98, 1.12, 0.88, 1.03]]
    assert compare_with_default([more], default, "min")[0].adopt
    assert not compare_with_default([less], default, "min")[0].adopt


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_equal_configurations_are_hardly_adopted_where_scores_come_in_coarse_steps(seeds: int) -> None:
    dice = np.random.default_rng(1)
    draws = [dice.integers(0, 3, (4, seeds)) / 50 for _ in range(200)]
    adopted = [any(c.adopt for c in compare_with_default(x[1:].tolist(), x[0].tolist(), "max")) for x in draws]
    assert np.mean(adopted) < 0.05


def study_with(folder: Path, trials: list[tuple[float, str, dict[str, Any]]], default: dict[str, Any]) -> StudyFolder:
    """The files of a study: value, origin and values of each trial; lower is better."""
    study = StudyFolder(folder)
    folder.mkdir()
    facts = {"objectives": ["val/loss"], "modes": ["min"], "fixed": ["max_steps=2"], "default": default, "stages": None}
    study.study_config.write_text(json.dumps(facts))
    lines = [
        {
            "number": number, "state": "complete", "excess": [], "value": value, "origin": origin, "params": params,
            "overrides": [f"{name}={it}" for name, it in params.items()],
        }
        for number, (value, origin, params) in enumerate(trials)
    ]  # fmt: skip
    study.trials.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return study


def test_nothing_is_confirmed_where_the_default_is_the_best_whoever_proposed_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worse, best = (2.0, "sampler", {"lr": 1e-2}), {"lr": 1e-3}
    for name, origin in (("first", "default"), ("grid", "sampler")):
        study = study_with(tmp_path / name, [worse, (1.0, origin, best)], best)
        assert plan_reruns(study, 3, 5)[0] == []
        with pytest.raises(SystemExit, match="0"):
            main(["confirm", str(study.root)])
        assert "nothing to confirm" in capsys.readouterr().out and not study.confirmation.exists()


def test_a_configuration_of_several_seeds_is_confirmed_once_and_by_its_mean(tmp_path: Path) -> None:
    trials = [
        (1.0, "sampler", {"lr": 0.1, "seed": 0}), (3.0, "sampler", {"lr": 0.1, "seed": 1}),
        (1.5, "sampler", {"lr": 0.2, "seed": 0}), (1.5, "sampler", {"lr": 0.2, "seed": 1}),
        (9.0, "default", {"lr": 0.3, "seed": 0}),
    ]  # fmt: skip
    reruns, _ = plan_reruns(study_with(tmp_path / "s", trials, {"lr": 0.3, "seed": 0}), 3, 2)
    assert [rerun.label for rerun in reruns] == ["default", "trial 2", "trial 0"] * 2


def test_a_seed_of_the_search_is_not_fresh(tmp_path: Path) -> None:
    trials = [(1.0, "sampler", {"lr": 0.1, "seed": 1001}), (9.0, "default", {"lr": 0.3, "seed": 1000})]

    reruns, _ = plan_reruns(study_with(tmp_path / "s", trials, {"lr": 0.3}), 3, 2)

    assert [rerun.seed for rerun in reruns] == [1002, 1002, 1003, 1003]


def test_the_correction_is_the_one_of_holm() -> None:
    chances = [0.01, 0.04, 0.03, 0.005]  # the example of many textbooks: 4, 3, 2 and 1 times, never falling

    assert holm_correction(chances) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_correction([0.6, 0.7]) == [1.0, 1.0] and holm_correction([]) == []
