"""The stages that reproduce a run, and the verdict on the result."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tunelab.errors import ConfigError
from tunelab.runs.redact import REDACTED
from tunelab.runs.reproduction import check_reproducible, child_environment, training_stages
from tunelab.runs.reproduction_check import circumstance_changes, compare_runs, difference_lines, seed_interval

SETTINGS: dict[str, Any] = {
    "max_epochs": 2, "max_steps": None, "callbacks": {"patience": 3}, "trainer": {"precision": "32-true"},
    "eval": {"batch_size": 8},
}  # fmt: skip


def card(**changes: Any) -> dict[str, Any]:
    """A card of a run that finished in one go."""
    found: dict[str, Any] = {
        "status": "finished", "reason": None, "config": {**SETTINGS, "lr": 0.1, "test": True, "seed": 0},
        "sessions": [], "resumed_at": None, "best": {"step": 4, "monitor": "val/loss", "value": 1.5},
        "scores": {"test": {"loss": 1.25, "f1": None}}, "results": {"weights_sha256": "a", "predictions_sha256": "b"},
    }  # fmt: skip
    return found | changes


def session(resumed_at: int | None, **changes: Any) -> dict[str, Any]:
    return {"resumed_at": resumed_at, "settings": SETTINGS | changes}


def test_a_run_in_one_go_is_one_training_that_no_tracker_and_no_search_hears_of() -> None:
    (stage,) = training_stages(card(config={**SETTINGS, "trial": {"id": 3, "study": "s"}, "logger": {"kind": "wandb"}}))

    assert stage.stop_at is None
    assert stage.config["trial"] == {"id": None, "study": None}
    assert stage.config["logger"] == {"kind": "none"}
    assert stage.config["save"] is False


def test_the_day_that_a_template_wrote_is_written_again() -> None:
    settings = {**SETTINGS, "data": {"train": "f.jsonl", "template_date": None}}

    (stage,) = training_stages(card(config=settings, data={"files": {}, "template_date": "2024-02-03"}))

    assert stage.config["data"] == {"train": "f.jsonl", "template_date": "2024-02-03"}


def test_a_run_that_was_stopped_and_resumed_alike_is_one_training() -> None:
    assert [stage.stop_at for stage in training_stages(card(sessions=[session(None), session(3)], resumed_at=5))] == [
        None
    ]


def test_more_epochs_half_way_are_trained_from_the_very_step_on() -> None:
    # Given a run of one epoch that was given two at step 7, stopped at 9, and given three at 11
    past = [session(None, max_epochs=1), session(7), session(9)]
    found = training_stages(card(sessions=past, resumed_at=11, config={**card()["config"], "max_epochs": 3}))

    assert [(stage.config["max_epochs"], stage.stop_at) for stage in found] == [(1, 7), (2, 11), (3, None)]
    assert [stage.config["test"] for stage in found] == [False, False, True]


def test_what_came_before_a_fresh_start_is_not_trained() -> None:
    past = [session(None, max_epochs=9), session(None)]

    assert [(stage.config["max_epochs"], stage.stop_at) for stage in training_stages(card(sessions=past))] == [
        (2, None)
    ]


@pytest.mark.parametrize("status", ["running", "pre-empted", "pruned", "failed"])
def test_a_run_without_a_result_is_refused(status: str) -> None:
    with pytest.raises(ConfigError, match=f"the run is {status}"):
        check_reproducible(card(status=status), "runs/1")


def test_a_blacked_out_setting_is_named() -> None:
    with pytest.raises(ConfigError, match=r"data\.train is redacted"):
        check_reproducible(
            card(config={"data": {"train": f"{REDACTED}/my.jsonl"}, "logger": {"api_key": REDACTED}}), "runs/1"
        )


def test_the_same_results_are_identical_and_a_score_that_is_no_number_equals_itself() -> None:
    assert compare_runs(card(), card()).identical


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"results": {"weights_sha256": "x", "predictions_sha256": "b"}}, "the weights differ"),
        ({"results": {"weights_sha256": "a", "predictions_sha256": "x"}}, "the predictions differ"),
        ({"scores": {"test": {"loss": 1.25000001, "f1": None}}}, "test/loss differs"),
        ({"best": {"step": 5, "monitor": "val/loss", "value": 1.5}}, "of step 5"),
        ({"status": "diverged", "reason": "loss is nan"}, "ended diverged"),
    ],
)
def test_whatever_differs_is_named(changes: dict[str, Any], words: str) -> None:
    verdict = compare_runs(card(), card(**changes))

    assert not verdict.identical
    assert any(words in line for line in verdict.differences)


def test_cards_without_a_common_result_prove_nothing() -> None:
    bare = card(results={}, scores={}, best=None)

    assert not compare_runs(bare, bare).identical


def test_a_score_is_told_to_lie_inside_or_outside_of_the_seed_spread() -> None:
    # Given four seeds around 1.25, so that one more would land within about 0.2 of it
    seeds = [card(scores={"test": {"loss": loss}}) for loss in (1.2, 1.3, 1.22)]

    for loss, place in ((1.3, "inside"), (2.0, "OUTSIDE")):
        verdict = compare_runs(card(), card(scores={"test": {"loss": loss}}), seeds)
        assert any(
            line.startswith("test/loss: 1.25 then") and f", {place} the seed" in line
            for line in difference_lines(verdict)
        )


def test_the_spread_is_the_prediction_interval_of_the_textbook() -> None:
    # 1, 2, 3: mean 2, deviation 1, t(0.975, 2) = 4.302653, times the root of 1 + 1/3
    found = seed_interval([1.0, 2.0, 3.0])

    assert found is not None
    assert found.high - 2 == pytest.approx(4.302653 * (4 / 3) ** 0.5, rel=1e-6)
    assert seed_interval([1.0, 2.0]) is None


def test_each_circumstance_that_changed_has_its_line() -> None:
    then = {
        "data": {"files": {"a.csv": "1" * 64, "gone.csv": "2" * 64}},
        "model": {"path": "base", "sha256": "3" * 64},
        "code_sha256": "old",
        "git": {"commit": "c" * 40, "diff": "+x", "diff_bytes": 2, "untracked": []},
        "python": "3.11.1",
        "packages": {"torch": "2.12", "numpy": "2.1", "pytest": "9.0"},
        "hardware": {"processor": "one", "gpus": []},
        "numerics": {"threads": 2},
    }
    now = {
        "data": {"files": {"a.csv": "9" * 64}},
        "model": {"path": "base", "sha256": "8" * 64},
        "code_sha256": "new",
        "python": "3.11.1",
        "packages": {"torch": "2.13", "numpy": "2.1", "rich": "1"},
        "hardware": {"processor": "another", "gpus": []},
        "numerics": {"threads": 2},
    }

    assert not circumstance_changes(then, then)
    found = circumstance_changes(then, now)
    assert [line.partition(":")[0] for line in found] == [
        *("data changed", "base weights changed", "code changed", "version changed", "machine changed")
    ]
    assert "git checkout cccccccccccc and apply git.diff" in found[2]
    assert "torch was 2.12, is 2.13; pytest was 9.0, is gone" in found[3]


@pytest.mark.parametrize("relative", ["", ".", "evil", ":evil:"])
def test_modules_in_the_folder_that_a_manifest_names_are_never_imported(
    relative: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tunelab", "torch", "hydra", "json"):
        (tmp_path / "evil" / name).mkdir(parents=True)
        (tmp_path / "evil" / name / "__init__.py").write_text("raise SystemExit(9)")
    monkeypatch.setenv("PYTHONPATH", relative)
    monkeypatch.chdir(tmp_path / "evil" if relative in ("", ".") else tmp_path)
    environment = child_environment({})
    monkeypatch.chdir(tmp_path)
    if relative != "":  # a folder on the path of the person who types is hers
        environment["PYTHONPATH"] = environment["PYTHONPATH"].replace(str(tmp_path / "evil"), str(tmp_path / "other"))

    for started in (["-m", "tunelab.errors"], ["-c", "import json, tunelab, hydra"]):
        done = subprocess.run([sys.executable, *started], cwd=tmp_path / "evil", env=environment)
        assert done.returncode == 0
