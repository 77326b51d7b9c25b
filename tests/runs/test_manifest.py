"""The manifest of a run."""

import hashlib
import json
import os
import platform
import subprocess
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import pytest
import torch

from tunelab.runs.environment import DIFF_LIMIT, code_revision, installed_packages
from tunelab.runs.manifest import finish_manifest, read_template_date, start_manifest
from tunelab.runs.run_dir import RunDirectory
from tunelab.runs.run_status import RUN_STATUSES


def opened(**changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "command": ["train.py", "lr=1e-3", "data.train=my file.csv"],
        "overrides": ["lr=1e-3"],
        "config": {"lr": 1e-3, "micro_tokens": 64},
        "seed": 7,
        "data": {"train": {"path": "my file.csv", "sha256": "ab"}},
        "model": {"path": "base", "sha256": "cd"},
    }
    return start_manifest(**(settings | changes))


def test_packages_are_those_that_python_itself_lists() -> None:
    listed = dict[str, str]()
    for package in distributions():
        listed.setdefault(package.metadata["Name"].lower().replace("_", "-"), package.version)
    assert installed_packages() == listed


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, out of reach of the user's own git settings."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "somebody")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "somebody@example.org")
    root = tmp_path / "repository"
    root.mkdir()
    (root / "train.py").write_text("lr = 1\n")
    (root / ".gitignore").write_text(".venv\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "start"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    return root


def test_a_card_holds_what_a_number_rests_on() -> None:
    card = opened()
    assert card["status"] == "running"
    assert card["command"] == "train.py lr=1e-3 'data.train=my file.csv'"
    assert card["config"] == {"lr": 1e-3, "micro_tokens": 64}
    assert card["seeds"] == {"global": 7}
    assert (card["data"]["train"]["sha256"], card["model"]["sha256"]) == ("ab", "cd")
    assert card["python"] == platform.python_version()
    assert card["packages"]["torch"] == version("torch")
    assert card["packages"]["typing-extensions"] == version("typing_extensions")
    assert card["hardware"]["cores"] == os.cpu_count()
    assert card["hardware"]["memory_bytes"] > 2**28
    assert len(card["hardware"]["gpus"]) >= torch.cuda.device_count()
    assert card["started"].endswith("+00:00")
    json.dumps(card, allow_nan=False)


def test_two_runs_of_the_same_second_have_different_ids() -> None:
    assert opened()["id"] != opened()["id"]


def test_no_secret_reaches_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKER_API_KEY", "canary-environment")
    folder = RunDirectory(tmp_path)
    card = opened(
        command=["train.py", "logger.api_key=canary-command", "note=canary-environment"],
        overrides=["logger.api_key=canary-override"],
        config={"logger": {"api_key": "canary-config", "note": "canary-environment"}},
    )
    folder.write_manifest(finish_manifest(card, "failed", "refused canary-environment", 1.0, None, {}))
    text = folder.manifest.read_text()
    assert "canary" not in text
    assert "logger.api_key=" in text, "that a key was given may be known"


def test_a_clean_and_a_changed_repository_are_told_apart(repository: Path) -> None:
    clean = code_revision(repository)
    assert (clean["dirty"], clean["diff"], clean["untracked"]) == (False, "", [])
    assert len(clean["commit"]) == 40
    (repository / "train.py").write_text("lr = 2\n")
    (repository / "new.py").write_text("")
    changed = code_revision(repository)
    assert changed["dirty"] is True
    assert changed["commit"] == clean["commit"]
    assert "+lr = 2" in changed["diff"]
    assert changed["diff_sha256"] == hashlib.sha256(changed["diff"].encode()).hexdigest()
    assert changed["untracked"] == ["new.py"]


def test_a_long_diff_is_cut_but_its_sha256_is_not(repository: Path) -> None:
    digests = []
    for ending in "ab":
        (repository / "train.py").write_text("é" * DIFF_LIMIT + ending)
        found = code_revision(repository)
        assert DIFF_LIMIT - 1 <= len(found["diff"].encode()) <= DIFF_LIMIT
        assert found["diff_bytes"] > 2 * DIFF_LIMIT
        digests.append(found["diff_sha256"])
    assert digests[0] != digests[1]


def test_a_secret_in_the_diff_is_blacked_out(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-in-the-code")
    (repository / "train.py").write_text("token = 'canary-in-the-code'\n")
    assert "canary" not in code_revision(repository)["diff"]


def test_an_ignored_folder_of_a_repository_is_not_its_code(repository: Path) -> None:
    installed = repository / ".venv" / "tunelab"
    installed.mkdir(parents=True)
    (installed / "run.py").write_text("")
    found = code_revision(installed)
    assert found["commit"] is None
    assert "no version control" in found["reason"]


def test_code_outside_any_repository_says_so(tmp_path: Path) -> None:
    found = code_revision(tmp_path)
    assert found["commit"] is None
    assert "not a git repository" in found["reason"]


def test_a_closed_card_says_how_it_ended_and_scores_by_split() -> None:
    best = {"step": 40, "monitor": "val/loss", "value": 0.5}
    scores = {"val/loss": 0.5, "test/loss": 0.6, "test/accuracy": 0.9}
    start = opened()
    card = finish_manifest(start, "early-stopped", "val/loss rose 3 times", 12.5, best, scores)
    assert (card["status"], card["seconds"], card["best"]) == ("early-stopped", 12.5, best)
    assert card["scores"] == {"val": {"loss": 0.5}, "test": {"loss": 0.6, "accuracy": 0.9}}
    assert card["ended"] >= card["started"]
    assert start["status"] == "running", "the opened card is left as it is"


def test_a_resumed_run_keeps_its_id_and_adds_up_its_time() -> None:
    first = finish_manifest(opened(), "pre-empted", "SIGTERM", 10.0, None, {})
    second = finish_manifest(opened(earlier=first), "pre-empted", "SIGTERM", 5.0, None, {})
    third = finish_manifest(opened(earlier=second), "finished", None, 2.0, None, {})
    assert third["id"] == first["id"]
    assert third["seconds"] == 17.0
    assert [session["seconds"] for session in third["sessions"]] == [10.0, 5.0]
    assert [session["status"] for session in third["sessions"]] == ["pre-empted", "pre-empted"]


def test_a_run_killed_without_an_ending_can_be_resumed() -> None:
    killed = opened()
    card = finish_manifest(opened(earlier=killed), "finished", None, 3.0, None, {})
    assert card["seconds"] == 3.0
    assert card["sessions"][0]["status"] == "running"


def test_sessions_keep_what_may_have_changed_between_them() -> None:
    # Given a run of 10 J that went on at step 7 with more epochs for 5 J more, and once more for 1 J
    config = {"max_epochs": 1, "lr": 0.1}
    joules = [{"processor_joules": value, "gpu_joules": None} for value in (10.0, 5.0, 1.0)]
    first = finish_manifest(opened(config=config), "pre-empted", "SIGTERM", 1.0, None, {}, energy=joules[0])
    again = opened(config={**config, "max_epochs": 2}, earlier=first, resumed_at=7)
    second = finish_manifest(again, "finished", None, 1.0, None, {}, energy=joules[1])
    third = finish_manifest(opened(earlier=second, resumed_at=9), "finished", None, 1.0, None, {}, energy=joules[2])

    assert third["energy"] == {"processor_joules": 16.0, "gpu_joules": None}
    assert [session["energy"]["processor_joules"] for session in third["sessions"]] == [10.0, 5.0]
    assert [session["settings"]["max_epochs"] for session in third["sessions"]] == [1, 2]
    assert [session["resumed_at"] for session in third["sessions"]] == [None, 7]
    assert third["resumed_at"] == 9


def test_the_scores_of_a_source_stand_under_their_split() -> None:
    card = finish_manifest(opened(), "finished", None, 1.0, None, {"val/loss": 1.0, "val/small/loss": 2.0})
    assert card["scores"] == {"val": {"loss": 1.0, "small/loss": 2.0}}


@pytest.mark.parametrize("status", ["running", "done", ""])
def test_an_unknown_ending_is_refused(status: str) -> None:
    with pytest.raises(ValueError, match="no way for a run to end"):
        finish_manifest({"sessions": []}, status, "because", 1.0, None, {})


@pytest.mark.parametrize("status", RUN_STATUSES[2:])
def test_an_ending_before_the_end_needs_a_reason(status: str) -> None:
    with pytest.raises(ValueError, match="needs a reason"):
        finish_manifest({"sessions": []}, status, None, 1.0, None, {})


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ('{"data": {"template_date": "2024-02-03"}}', "2024-02-03"),
        ('{"data": {}}', None),
        ('{"data": 3}', None),
        ("[]", None),
        ("{", None),
        (None, None),
    ],
)
def test_the_day_of_a_template_is_read_from_any_manifest(text: str | None, day: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text, encoding="utf-8")

    assert read_template_date(tmp_path) == day
