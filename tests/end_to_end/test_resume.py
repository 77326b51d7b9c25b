"""A run that was stopped and resumed ends exactly as one that was not."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from support.resumed_runs import CASES, STEPS, Watch, again, curves, overrides, stopped_and_resumed, weights, whole
from support.tiny_runs import config, settings
from tunelab.config.resume import resume_config
from tunelab.config.validate import validate_config
from tunelab.runs.checkpoint import read_checkpoint
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.run import fine_tune


@pytest.mark.parametrize("case", CASES, ids=[name.replace(" ", "-") for name in CASES])
def test_a_resumed_run_is_bit_equal_to_an_uninterrupted_one(case: str, tmp_path: Path) -> None:
    stops, more = CASES[case]
    given = overrides(tmp_path, *more)

    # Given an uninterrupted run
    watch, one = whole(tmp_path, given)
    # When the same run is stopped and gone on with
    seen, other = stopped_and_resumed(tmp_path, given, stops)

    # Then every step saw the same rows, loss and rate, every validation the same score
    assert seen == watch.seen
    for name, weight in weights(one).items():
        assert torch.equal(weight, weights(other)[name]), name
    best = [read_checkpoint(folder / "checkpoints" / "best.ckpt") for folder in (one, other)]
    assert best[0]["global_step"] == best[1]["global_step"]
    assert RunDirectory(one).read_scores() == RunDirectory(other).read_scores()
    assert curves(one) == curves(other)


@pytest.mark.parametrize("more", [[], ["data.split.validation=0"]], ids=["validated", "never-validated"])
def test_a_finished_run_that_gets_more_steps_sees_the_rest_of_its_epoch(more: list[str], tmp_path: Path) -> None:
    # Given twelve steps with a rate that does not know how many there will be
    given = overrides(tmp_path, "scheduler=constant", "callbacks.early_stopping=false", *more)
    watch, one = whole(tmp_path, [*given, "max_steps=12"])

    # When a run of five, which ends in its second epoch, is given seven more
    first, last = Watch(), Watch()
    fine_tune(settings(*given, "max_steps=5"), tmp_path / "parts", callbacks=[first])
    longer = [f"resume={tmp_path / 'parts'}", "max_steps=12"]
    fine_tune(validate_config(resume_config(config(*longer), longer)), tmp_path / "parts", callbacks=[last])

    # Then it takes the same steps
    steps = [[entry for entry in entries if entry[0] != "val"] for entries in (watch.seen, first.seen + last.seen)]
    assert steps[0] == steps[1] and len(steps[0]) == 12
    assert all(torch.equal(weight, weights(tmp_path / "parts")[name]) for name, weight in weights(one).items())
    parts = curves(tmp_path / "parts")
    losses = [[row["train/loss"] for row in rows if "train/loss" in row] for rows in (curves(one), parts)]
    assert losses[0] == losses[1] and len(losses[0]) == 12


def test_a_run_that_early_stopping_ended_stays_ended_unless_it_is_given_more_patience(tmp_path: Path) -> None:
    # Given the run of the case above, which early stopping really ends
    watch, folder = whole(tmp_path, overrides(tmp_path, "callbacks.patience=1", "lr=0.5", "max_epochs=8"))
    ended = RunDirectory(folder).read_manifest()
    validations = [entry for entry in watch.seen if entry[0] == "val"]
    assert ended["status"] == "early-stopped" and len(validations) < 8
    assert ended["reason"].endswith(f"for 1 validations, by epoch {len(validations)}")

    # When it is resumed as it is, then it trains no step, and ends as it did
    same = Watch()
    fine_tune(again(folder), folder, callbacks=[same])
    card = RunDirectory(folder).read_manifest()
    assert not same.seen and (card["status"], card["reason"]) == (ended["status"], ended["reason"])

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


def test_a_resumed_run_refuses_settings_that_change_what_is_learned(tmp_path: Path) -> None:
    from support.tiny_runs import config
    from tunelab.errors import ConfigError

    _, folder = whole(tmp_path, overrides(tmp_path, "max_epochs=1"))
    given = [f"resume={folder}", "lr=0.1", "seed=3", "max_epochs=2"]

    with pytest.raises(ConfigError, match=r"(?s)lr=0.1.*seed=3") as told:
        resume_config(config(*given), given)
    assert "max_epochs=2 would" not in str(told.value)
