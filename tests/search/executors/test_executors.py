"""Every executor runs the same search to the same end."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.instant_search import PLAN, engine, run
from tunelab.errors import ConfigError
from tunelab.search.executors import make_executor
from tunelab.search.trial_process import slot_environments, visible_gpus


def never(overrides: Any, folder: Path) -> None:
    raise AssertionError("no training of this test runs in this process")


def ended(root: Path, *fixed: str, **changes: Any) -> list[Any]:
    made = engine(root, fixed, trials=3, parallel_trials=2)
    made.pool.executor = make_executor(replace(PLAN, **changes), never, root / "jobs")
    assert run(made)
    return made.trials()


@pytest.mark.slow
def test_submitit_runs_trials_as_jobs(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="the extra `cluster` is not installed")
    trials = ended(tmp_path, executor="submitit", executor_options={"cluster": "local", "timeout_min": 2})

    assert [trial.value for trial in trials] == [pytest.approx((trial.params["x"] - 0.3) ** 2) for trial in trials]


@pytest.mark.slow
def test_a_job_that_fails_is_a_failed_trial(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="the extra `cluster` is not installed")
    trials = ended(tmp_path, "act=memory", executor="submitit", executor_options={"cluster": "local", "timeout_min": 2})

    assert {trial.user_attrs["kind"] for trial in trials} == {"memory"}


@pytest.mark.slow
def test_ray_runs_trials_as_actors(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    trials = ended(tmp_path, executor="ray", executor_options={"num_cpus": 2})

    assert [trial.value for trial in trials] == [pytest.approx((trial.params["x"] - 0.3) ** 2) for trial in trials]


def test_an_unknown_option_of_a_cluster_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="the extra `cluster` is not installed")
    with pytest.raises(ConfigError, match="executor_options"):
        make_executor(
            replace(PLAN, executor="submitit", executor_options={"cluster": "local", "nodez": 2}), never, tmp_path
        )


def test_each_slot_gets_its_own_devices_and_its_share_of_the_threads() -> None:
    made = slot_environments(2, 2, {"CUDA_VISIBLE_DEVICES": "4,5,6,7"})

    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in made] == ["4,5", "6,7"]
    assert {slot["OMP_NUM_THREADS"] for slot in made} == {str(max(1, (os.cpu_count() or 1) // 2))}
    assert slot_environments(1, 1, {"CUDA_VISIBLE_DEVICES": ""}) == [{}]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "MIG-1,3"}) == ["MIG-1", "3"]


def test_more_slots_than_devices_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs 4 GPUs and 2 are there"):
        slot_environments(2, 2, {"CUDA_VISIBLE_DEVICES": "0,1"})
