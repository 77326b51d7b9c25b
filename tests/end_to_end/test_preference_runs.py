"""Whole runs on pairs: they learn, they go on bit for bit, and two processes are one.  Also what the processes run."""

import logging
import os
import signal
import sys
import warnings
from math import log
from pathlib import Path
from subprocess import run
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.preference_examples import write_pairs
from support.resumed_runs import other_weights, weights
from support.tiny_runs import MODEL, QUIET, config, settings
from tunelab.config.resume import resume_config
from tunelab.config.validate import validate_config
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.run import fine_tune


class StopAt(Callback):
    """Sends SIGTERM at a step, and keeps what the rewards were."""

    def __init__(self, step: int | None = None) -> None:
        self.step, self.seen = step, []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        scores = trainer.callback_metrics
        self.seen.append([float(scores[f"train/{name}"]) for name in ("loss", "reward_margin", "reward_accuracy")])
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def given(folder: Path, *more: str) -> list[str]:
    """Two short epochs on pairs, with dropout."""
    train = write_pairs(folder, "train", 40)
    return [
        "data=preference", f"data.train={train}", *MODEL, *QUIET, "batch_size=6", "micro_tokens=300", "max_epochs=2",
        "regularization.dropout=0.2", "lr=3e-3", "data.split.validation=0.2", "save=false",
        "trainer.log_every_n_steps=1", *more,
    ]  # fmt: skip


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_a_resumed_run_has_the_same_reference_and_ends_bit_equal(adapter: str, tmp_path: Path) -> None:
    # Given an uninterrupted run, and one that is stopped after four steps
    whole, first, second = StopAt(), StopAt(4), StopAt()
    command = given(tmp_path, f"adapter={adapter}")
    fine_tune(settings(*command), tmp_path / "whole", callbacks=[whole])
    with pytest.raises(SystemExit):
        fine_tune(settings(*command), tmp_path / "parts", callbacks=[first])
    resume = f"resume={tmp_path / 'parts'}"
    fine_tune(validate_config(resume_config(config(resume), [resume])), tmp_path / "parts", callbacks=[second])

    # Then rewards, which are measured from the reference, and weights are the same to the last bit
    assert first.seen + second.seen == whole.seen
    assert abs(whole.seen[0][1]) < 0.1 < abs(whole.seen[-1][1])  # the model has left the reference
    assert not other_weights(tmp_path / "whole", tmp_path / "parts")
    assert RunDirectory(tmp_path / "whole").read_scores() == RunDirectory(tmp_path / "parts").read_scores()


def test_held_out_pairs_are_told_apart_after_tuning(tmp_path: Path) -> None:
    # Given the built-in model, to which both answers of a pair are equally strange
    files = [f"data.{split}={write_pairs(tmp_path, split, n)}" for split, n in (("train", 480), ("test", 96))]
    fine_tune(
        settings("data=preference", *files, *QUIET, "lr=1e-3", "max_epochs=1", "trainer.log_every_n_steps=1"),
        tmp_path / "run",
    )

    # Then most chosen answers of pairs never seen are rewarded more, which a coin would do for half of them
    folder = RunDirectory(tmp_path / "run")
    scores = folder.read_scores()
    assert scores["test/reward_accuracy"] > 0.7
    assert scores["test/loss"] < 0.9 * log(2)
    assert scores["test/reward_margin"] == pytest.approx(scores["test/chosen_reward"] - scores["test/rejected_reward"])
    assert "base/loss" not in scores  # before training it is log 2 for any model
    rows = folder.read_predictions()
    assert sum(row["margin"] > 0 for row in rows) / len(rows) == pytest.approx(scores["test/reward_accuracy"])
    curves = folder.read_curves()
    assert {"train/reward_accuracy", "train/reward_margin"} <= set(curves[0])
    assert AutoModelForCausalLM.from_pretrained(folder.export).config.vocab_size


def test_equal_answers_stop_the_run_with_file_and_line(tmp_path: Path) -> None:
    from tunelab.errors import DataError

    path = write_pairs(tmp_path, "test", 12)
    path.write_text(path.read_text() + '{"prompt": "Say red", "chosen": "red", "rejected": "red"}\n')
    own = [f"data.train={path}", "data.split.validation=0", "data.split.test=0"]

    with pytest.raises(DataError, match=r"test.jsonl line 13: .*without a difference"):
        fine_tune(settings(*given(tmp_path), *own), tmp_path / "run")


@pytest.mark.slow  # three interpreters import everything
def test_two_processes_take_the_same_steps_as_one(tmp_path: Path) -> None:
    for devices in (1, 2):
        command = [sys.executable, __file__, str(devices), str(tmp_path)]
        done = run(command, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr[-2000:]

    one, two = (RunDirectory(tmp_path / str(devices)).read_scores() for devices in (1, 2))
    assert one == pytest.approx(two, abs=1e-5)
    left, right = (weights(tmp_path / str(devices)) for devices in (1, 2))
    for name, weight in left.items():
        torch.testing.assert_close(right[name], weight, rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    place = Path(sys.argv[2])
    own = ["regularization.dropout=0", "max_epochs=1", f"trainer.devices={sys.argv[1]}", "trainer.accelerator=cpu"]
    fine_tune(settings(*given(place, *own)), place / sys.argv[1])
