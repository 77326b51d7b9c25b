"""What W&B's environment says of a run: a setting goes before it, and ours come after it."""

import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from support.tiny_runs import config
from tunelab.config.schema import LoggerConfig
from tunelab.runs.study_folder import StudyFolder
from tunelab.search.study_artifacts import tracker_overrides
from tunelab.tracking.wandb_start import agent_run_id, describe_run, start_wandb, wandb_folder

ENVIRONMENT = {
    "WANDB_PROJECT": "my-sentiment",
    "WANDB_ENTITY": "my-team",
    "WANDB_NAME": "first-try",
    "WANDB_RUN_GROUP": "ablation",
    "WANDB_JOB_TYPE": "debug",
    "WANDB_TAGS": "short, baseline",
    "WANDB_NOTES": "why not",
}
FROM_ENVIRONMENT = {
    "project": "my-sentiment",
    "entity": "my-team",
    "name": "first-try",
    "group": "ablation",
    "job_type": "debug",
    "tags": ["short", "baseline"],
    "notes": "why not",
}
SET: dict[str, Any] = {
    "project": "set", "entity": "one", "name": "mine", "group": "g", "job_type": "j", "tags": ["t"], "notes": "n",
}  # fmt: skip


def test_the_environment_goes_before_our_defaults_and_settings_before_it() -> None:
    assert describe_run(ENVIRONMENT, LoggerConfig(kind="wandb"), "ours") == FROM_ENVIRONMENT
    assert describe_run(ENVIRONMENT, LoggerConfig(kind="wandb", **SET), "ours") == SET
    bare = describe_run({}, LoggerConfig(kind="wandb"), "ours")
    assert (bare["project"], bare["name"], bare["job_type"], bare["tags"]) == ("tunelab", "ours", "train", None)


def test_the_shipped_settings_leave_room_for_the_environment() -> None:
    shipped: Any = OmegaConf.to_container(config("logger=wandb").logger)
    logger = LoggerConfig.parse(shipped, "logger", [])
    assert describe_run(ENVIRONMENT, logger, "ours") == FROM_ENVIRONMENT


def test_an_agent_gives_a_run_its_id_and_no_trial() -> None:
    environment = {"WANDB_RUN_ID": "abc"}
    assert agent_run_id(environment, LoggerConfig(kind="wandb")) == "abc"
    assert agent_run_id(environment, LoggerConfig(kind="wandb", job_type="trial")) is None


def test_a_search_keeps_the_group_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder, composed = StudyFolder(tmp_path / "study"), config("logger=wandb")
    monkeypatch.delenv("WANDB_RUN_GROUP", raising=False)
    monkeypatch.delenv("WANDB_JOB_TYPE", raising=False)
    assert tracker_overrides(composed, folder) == ["logger.group=study", "logger.job_type=trial"]
    monkeypatch.setenv("WANDB_RUN_GROUP", "ablation")
    assert tracker_overrides(composed, folder) == []


def test_an_offline_run_is_written_where_and_as_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {**ENVIRONMENT, "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path / "elsewhere")}.items():
        monkeypatch.setenv(name, value)
    hints: list[str] = []
    run = start_wandb(LoggerConfig(kind="wandb"), folder=tmp_path / "run", run_config={}, name="ours",
                      monitor="val/loss", mode="min", tell=hints.append)  # fmt: skip
    assert run is not None
    assert (run.experiment.project, run.experiment.name, run.experiment.group) == (
        "my-sentiment",
        "first-try",
        "ablation",
    )
    run.finish("success")
    files = list((tmp_path / "elsewhere" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 1
    assert re.search(r"wandb leet .*elsewhere/wandb", hints[0])
    assert wandb_folder({}, tmp_path) == tmp_path
