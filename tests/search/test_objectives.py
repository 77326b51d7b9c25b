"""Every sampler, several objectives and limits, over a training that takes no time."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from support.instant_search import PLAN, engine, run
from tunelab.errors import ConfigError
from tunelab.search.search_config import resolve_objectives
from tunelab.search.space import build_space
from tunelab.search.study_results import rank_trials


def searched(root: Path, **changes: Any) -> Any:
    made = engine(root, **changes)
    assert run(made) is True
    return made


@pytest.mark.parametrize(
    "changes", [{"objectives": ["val/accuracy"]}, {"objectives": ["val/loss"], "constraints": {"val/accuracy": 1.0}}]
)
def test_a_score_that_no_trial_leaves_ends_the_search_at_the_first_and_names_those_there_are(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    made = engine(tmp_path, trials=20, constraints=changes.get("constraints", {}))
    made.objectives = changes["objectives"]
    with pytest.raises(ConfigError, match="left no val/accuracy; there are .*val/f1, val/loss"):
        run(made)

    assert [trial.user_attrs["kind"] for trial in made.trials()] == ["no score"]


def test_memory_and_parameters_can_be_limited(tmp_path: Path) -> None:
    limits = {"train/memory_mb": 150.0, "model/parameters": 900.0}  # of this training: 100 (1 + x), and 1000 x
    space = build_space({"x": "0.3,0.4,0.6,0.95"}, {}, {})
    made = searched(tmp_path, space=space, sampler="grid", constraints=limits)

    assert [trial.user_attrs["excess"] for trial in made.trials()] == [
        pytest.approx([100 * (1 + x) - 150, 1000 * x - 900]) for x in (0.3, 0.4, 0.6, 0.95)
    ]
    assert [trial.number for trial in rank_trials(made.trials(), made.pool.store.study.directions)] == [0, 1]


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "qmc", "evolution"])
def test_every_sampler_fills_a_study_without_a_twin(tmp_path: Path, sampler: str) -> None:
    space = build_space({"x": "interval(0.0,1.0)", "y": "tag(log,interval(1e-5,1e-2))"}, {}, {})
    made = searched(tmp_path, space=space, sampler=sampler, trials=6, parallel_trials=2)

    assert {trial.state.name for trial in made.trials()} == {"COMPLETE"} and len(made.trials()) == 6
    assert len({(trial.params["x"], trial.params["y"]) for trial in made.trials()}) == 6
    assert all(space.contains(trial.params) for trial in made.trials())


def test_two_objectives_leave_a_front(tmp_path: Path) -> None:
    space = build_space({"x": "0.0,0.3,0.6,0.9"}, {}, {})
    made = engine(tmp_path, space=space, sampler="grid", trials=4, ways=["min", "max"])
    made.objectives = ["val/loss", "val/f1"]  # (x - 0.3)^2 and 1 - x
    assert run(made)

    front = rank_trials(made.trials(), made.pool.store.study.directions)
    assert [trial.params["x"] for trial in front] == [0.3, 0.0]
    assert front[0].values == pytest.approx([0.0, 0.7])


def objectives_of(monitor: str = "auto", mode: str = "auto", objectives: Sequence[str] = ()) -> Any:
    config = OmegaConf.create({"monitor": monitor, "mode": mode, "data": {"task": "classification"}})
    return resolve_objectives(config, replace(PLAN, objectives=tuple(objectives)))


def test_the_monitored_score_of_the_task_is_the_objective_unless_one_is_named() -> None:
    assert objectives_of() == (["val/f1"], ["max"])
    assert objectives_of("val/kappa", "min") == (["val/kappa"], ["min"])


def test_a_direction_before_a_name_says_which_way_a_score_is_better() -> None:
    names = ["max:val/kappa", "val/loss", "max:train/time"]
    assert objectives_of(objectives=names) == (["val/kappa", "val/loss", "train/time"], ["max", "min", "max"])


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("val/generalisation_gap", "min"), ("train/plain_loss", "min"), ("train/loss_epoch", "min"),
        ("train/time", "min"),
        ("train/memory_mb", "min"), ("train/gpu_peak_mb", "min"), ("val/perplexity", "min"), ("train/spikes", "min"),
        ("test/ece", "min"), ("val/unfinished", "min"), ("val/unmatched", "min"), ("model/parameters", "min"),
        ("train/tokens_per_second", "max"), ("train/mfu", "max"), ("val/f1_all", "max"), ("val/books/loss", "min"),
    ],
)  # fmt: skip
def test_what_a_run_logs_goes_the_right_way(name: str, mode: str) -> None:
    assert objectives_of(objectives=[name]) == ([name], [mode])


@pytest.mark.parametrize("name", ["train/grad_norm", "train/lr", "train/tokens_seen", "train/sparsity", "val/error"])
def test_what_has_no_better_way_is_refused_with_the_prefixes(name: str) -> None:
    with pytest.raises(ConfigError, match=f"write min:{name} or max:{name}"):
        objectives_of(objectives=[name])


@pytest.mark.parametrize("name", ["maximize:val/f1", "max:", ":val/loss", "min:max:val/f1"])
def test_a_prefix_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="min:NAME or max:NAME"):
        objectives_of(objectives=[name])


def test_a_score_is_one_objective_only() -> None:
    with pytest.raises(ConfigError, match="names val/loss twice"):
        objectives_of(objectives=["val/loss", "max:val/loss"])


def test_scores_without_a_known_direction_are_refused_all_at_once() -> None:
    with pytest.raises(ConfigError, match=r"(?s)min:val/kappa or max:val/kappa.*min:gain or max:gain"):
        objectives_of(objectives=["val/kappa", "val/loss", "gain"])
    with pytest.raises(ConfigError, match="monitor=val/kappa: .*mode=min or mode=max"):
        objectives_of("val/kappa")
