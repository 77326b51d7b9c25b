"""A run that was stopped and resumed ends exactly as one that was not."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from support.resumed_runs import (
    CASES,
    STEPS,
    Watch,
    again,
    curves,
    other_weights,
    overrides,
    stopped_and_resumed,
    trained_once,
    weights,
    whole,
)
from support.tiny_runs import config, settings
from tunelab.config.resume import resume_config
from tunelab.config.validate import validate_config
from tunelab.errors import TuneLabError
from tunelab.runs.checkpoint import read_checkpoint
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.run import fine_tune

FEW = ("in mid-epoch", "with loader processes", "by Ctrl-C", "with a sum of steps")  # the others take the slow suite


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Watch, Path]]:
    """The runs that nothing stopped."""
    return trained_once(tmp_path_factory)


@pytest.mark.parametrize(
    "case",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in FEW), id=name.replace(" ", "-")) for name in CASES],
)
def test_a_resumed_run_is_bit_equal_to_an_uninterrupted_one(
    case: str, left_alone: Callable[..., tuple[Watch, Path]], tmp_path: Path
) -> None:
    stops, more = CASES[case]

    # Given an uninterrupted run, which loader processes do not change
    watch, one = left_alone(*(word for word in more if word != "data.workers=2"))
    # When the same run is stopped and gone on with
    seen, other = stopped_and_resumed(tmp_path, overrides(tmp_path, *more), stops)

    # Then every step saw the same rows, loss and rate, every validation the same score
    assert seen == watch.seen
    assert not other_weights(one, other)
    best = [read_checkpoint(folder / "checkpoints" / "best.ckpt") for folder in (one, other)]
    assert best[0]["global_step"] == best[1]["global_step"]
    assert RunDirectory(one).read_scores() == RunDirectory(other).read_scores()
    assert curves(one) == curves(other)


@pytest.mark.parametrize("done", [5, 2 * STEPS], ids=["within-an-epoch", "at-its-end"])
@pytest.mark.parametrize("more", [[], ["data.split.validation=0"]], ids=["validated", "never-validated"])
def test_a_finished_run_that_gets_more_steps_sees_the_rest_of_its_epoch(
    more: list[str], done: int, left_alone: Callable[..., tuple[Watch, Path]], tmp_path: Path
) -> None:
    # Given twelve steps with a rate that does not know how many there will be
    wanted = ["scheduler=constant", "callbacks.early_stopping=false", *more]
    watch, one = left_alone(*wanted, "max_steps=12")
    given = overrides(tmp_path, *wanted)

    # When a run that ends in or with its second epoch is given more
    first, last = Watch(), Watch()
    fine_tune(settings(*given, f"max_steps={done}"), tmp_path / "parts", callbacks=[first])
    longer = [f"resume={tmp_path / 'parts'}", "max_steps=12"]
    fine_tune(validate_config(resume_config(config(*longer), longer)), tmp_path / "parts", callbacks=[last])

    # Then it takes the same steps
    steps = [[entry for entry in entries if entry[0] != "val"] for entries in (watch.seen, first.seen + last.seen)]
    assert steps[0] == steps[1] and len(steps[0]) == 12
    assert not other_weights(one, tmp_path / "parts")
    parts = curves(tmp_path / "parts")
    losses = [[row["train/loss"] for row in rows if "train/loss" in row] for rows in (curves(one), parts)]
    assert losses[0] == losses[1] and len(losses[0]) == 12


def test_a_run_that_early_stopping_ended_stays_ended_unless_it_is_given_more_patience(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given the run of the case above, which early stopping really ends
    watch, folder = whole(tmp_path, overrides(tmp_path, "callbacks.patience=1", "lr=0.5", "max_epochs=8"))
    ended = RunDirectory(folder).read_manifest()
    validations = [entry for entry in watch.seen if entry[0] == "val"]
    assert ended["status"] == "early-stopped" and len(validations) < 8
    assert ended["reason"].endswith(f"for 1 validation, by epoch {len(validations)}")

    # When it is resumed as it is, then it trains no step, and ends as it did
    same = Watch()
    fine_tune(again(folder), folder, callbacks=[same])
    card = RunDirectory(folder).read_manifest()
    assert not same.seen and (card["status"], card["reason"]) == (ended["status"], ended["reason"])
    assert "nothing was left to train after step" in capsys.readouterr().out

    # And with more patience it goes on to its last epoch
    longer, more = [f"resume={folder}", "callbacks.patience=9"], Watch()
    fine_tune(validate_config(resume_config(config(*longer), longer)), folder, callbacks=[more])
    assert len([entry for entry in more.seen if entry[0] == "val"]) == 8 - len(validations)
    assert RunDirectory(folder).read_manifest()["status"] == "finished"


class Worsen(Callback):
    """Blows up the weights before a step, as a rate that is too high would."""

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 2 * STEPS:
            for weight in pl_module.model.parameters():
                weight.data *= 4


def test_what_was_best_before_a_stop_and_how_long_ago_are_known_after_it(tmp_path: Path) -> None:
    # Given a run that is best after two epochs, and waits for two more in vain
    given = overrides(tmp_path, "callbacks.patience=2", "max_epochs=6")
    fine_tune(settings(*given), tmp_path / "whole", callbacks=[Worsen()])

    # When it is stopped after it got worse, and gone on with
    with pytest.raises(SystemExit):
        fine_tune(settings(*given), tmp_path / "parts", callbacks=[Worsen(), Watch(2 * STEPS + 1)])
    fine_tune(again(tmp_path / "parts"), tmp_path / "parts")

    # Then the same weights are best, and it ends where it would have
    for name in ("whole", "parts"):
        folder = RunDirectory(tmp_path / name)
        assert read_checkpoint(folder.best)["global_step"] == folder.read_manifest()["best"]["step"] == 2 * STEPS
        assert read_checkpoint(folder.last)["global_step"] == 4 * STEPS
        assert folder.read_manifest()["status"] == "early-stopped"


def test_a_resumed_run_refuses_data_that_changed_since(tmp_path: Path) -> None:
    from tunelab.errors import DataError

    given = overrides(tmp_path)
    with pytest.raises(SystemExit):
        fine_tune(settings(*given), tmp_path / "run", callbacks=[Watch(4)])
    data = tmp_path / "instructions.jsonl"
    data.write_text(data.read_text().replace("blue", "gold"), encoding="utf-8")

    with pytest.raises(DataError, match=r"cannot resume .*instructions\.jsonl changed since the run began"):
        fine_tune(again(tmp_path / "run"), tmp_path / "run")


def test_a_damaged_last_checkpoint_costs_steps_and_no_exactness(
    left_alone: Callable[..., tuple[Watch, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watch, one = left_alone()
    with pytest.raises(SystemExit):
        fine_tune(settings(*overrides(tmp_path)), tmp_path / "parts", callbacks=[Watch(8)])
    folder = RunDirectory(tmp_path / "parts")
    folder.last.write_bytes(folder.last.read_bytes()[:100])

    last = Watch()
    fine_tune(again(folder.root), folder.root, callbacks=[last])

    assert "WARNING" in capsys.readouterr().err
    assert folder.read_manifest()["resumed_at"] == 2 * STEPS and "of step 6" in folder.read_manifest()["recovered"]
    assert last.seen == watch.seen[-len(last.seen) :]
    assert not other_weights(one, folder.root)
    assert curves(one) == curves(folder.root)


def test_how_a_step_is_computed_may_change_half_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = overrides(tmp_path, "regularization.dropout=0")
    watch, one = whole(tmp_path, given)
    with pytest.raises(SystemExit):
        fine_tune(settings(*given), tmp_path / "parts", callbacks=[Watch(4)])
    changed = [f"resume={tmp_path / 'parts'}", "micro_tokens=60", "data.workers=1"]

    last = Watch()
    fine_tune(validate_config(resume_config(config(*changed), changed)), tmp_path / "parts", callbacks=[last])

    assert "note: micro_tokens was 100: each step learns from the same rows" in capsys.readouterr().err
    steps = [
        [sorted(entry[1]) for entry in seen if entry[0] != "val"] for seen in (watch.seen[-len(last.seen) :], last.seen)
    ]
    assert steps[0] == steps[1]
    parts = weights(tmp_path / "parts")
    for name, weight in weights(one).items():
        torch.testing.assert_close(parts[name], weight, rtol=1e-5, atol=1e-6)


def test_a_second_ctrl_c_ends_at_once_and_says_which_checkpoint_stands(tmp_path: Path) -> None:
    class Impatient(Watch):
        def on_train_batch_end(self, trainer: L.Trainer, *rest: Any) -> None:
            if trainer.global_step == 4:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(SystemExit) as left:
        fine_tune(settings(*overrides(tmp_path)), tmp_path / "run", callbacks=[Impatient()])

    manifest = RunDirectory(tmp_path / "run").read_manifest()
    assert left.value.code == 130 and manifest["status"] == "pre-empted"
    assert f"checkpoints/last.ckpt of step {STEPS} is saved" in manifest["reason"]
    assert read_checkpoint(RunDirectory(tmp_path / "run").last)["global_step"] == STEPS


def test_a_run_that_is_killed_before_it_has_a_model_can_be_resumed(
    left_alone: Callable[..., tuple[Watch, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Stands for SIGKILL: nothing is written after it."""

    def die(*_: Any) -> None:
        raise Killed

    given = overrides(tmp_path, "max_epochs=1")
    _, one = left_alone("max_epochs=1")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr("tunelab.training.run.build_components", die)
        patched.setattr("tunelab.training.run.close_session", lambda *_: None)
        fine_tune(settings(*given), tmp_path / "parts")
    assert RunDirectory(tmp_path / "parts").read_manifest()["status"] == "running"

    fine_tune(again(tmp_path / "parts"), tmp_path / "parts")

    assert not other_weights(one, tmp_path / "parts")
    assert RunDirectory(tmp_path / "parts").read_manifest()["status"] == "finished"


def test_the_disk_is_measured_before_a_run_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunelab.training.lifecycle.shutil.disk_usage", lambda _: SimpleNamespace(free=300_000))
    watch = Watch()

    with pytest.raises(TuneLabError, match="the disk is too full for this run: 300,000 bytes are free") as refused:
        fine_tune(settings(*overrides(tmp_path)), tmp_path / "run", callbacks=[watch])

    assert refused.value.exit_status == 1 and not watch.seen
    assert RunDirectory(tmp_path / "run").read_manifest()["status"] == "failed"


def test_a_resumed_run_refuses_settings_that_change_what_is_learned(
    left_alone: Callable[..., tuple[Watch, Path]],
) -> None:
    from tunelab.errors import ConfigError

    _, folder = left_alone("max_epochs=1")
    given = [f"resume={folder}", "lr=0.1", "seed=3", "max_epochs=2"]

    with pytest.raises(ConfigError, match=r"(?s)lr=0.1.*seed=3") as told:
        resume_config(config(*given), given)
    assert "max_epochs=2 would" not in str(told.value)
