"""Runs that are stopped on purpose and resumed, and what is compared of them."""

import os
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from support.tiny_runs import MODEL, QUIET, config, instructions, settings
from tunelab.config.resume import resume_config
from tunelab.config.validate import validate_config
from tunelab.runs.checkpoint import read_checkpoint
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.run import fine_tune

STEPS = 3  # steps of an epoch: 24 rows, 16 of them for training, six at a time


class Watch(Callback):
    """Notes rows, loss and rate of every step and every validation; sends a signal at one of them."""

    def __init__(self, stop_at: int | None = None, number: int = signal.SIGTERM, *, validating: bool = False) -> None:
        self.stop_at, self.number, self.validating = stop_at, number, validating
        self.seen: list[Any] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        rows = [row for micro in batch.micro_batches for row in micro.row_indices.tolist()]
        scores = trainer.callback_metrics
        self.seen.append((trainer.global_step, rows, float(scores["train/loss"]), float(scores["train/lr"])))
        if not self.validating and trainer.global_step == self.stop_at:
            os.kill(os.getpid(), self.number)

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        if self.validating and trainer.state.fn == "fit" and trainer.global_step >= (self.stop_at or 0):
            os.kill(os.getpid(), self.number)

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.state.fn == "fit":
            self.seen.append(("val", float(trainer.callback_metrics["val/loss"])))


def overrides(tmp_path: Path, *more: str) -> list[str]:
    """Twelve steps at most, with dropout, on uneven rows; test_generation_eval has rows answered while it validates."""
    return [
        "data=instruction", f"data.train={instructions(tmp_path)}", *MODEL, *QUIET, "batch_size=6", "micro_tokens=100",
        "max_epochs=4", "regularization.dropout=0.2", "lr=3e-3", "data.split.validation=0.2", "data.split.test=0.1",
        "test=false", "save=false", "trainer.log_every_n_steps=1", "seed=1", "eval.generate=false", *more,
    ]  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"]


def other_weights(one: Path, other: Path) -> list[str]:
    """The names of the weights of two runs that differ in any bit."""
    left, right = weights(one), weights(other)
    assert left and left.keys() == right.keys()
    return [name for name in left if not torch.equal(left[name], right[name])]


def curves(folder: Path) -> list[dict[str, float]]:
    """All that was logged, without what hangs on the machine."""
    clock = ("train/tokens_per_second", "train/mfu", "train/memory_mb")
    rows = RunDirectory(folder).read_curves()
    return [{name: value for name, value in row.items() if name not in clock} for row in rows]


def whole(tmp_path: Path, given: list[str]) -> tuple[Watch, Path]:
    watch = Watch()
    fine_tune(settings(*given), tmp_path / "whole", callbacks=[watch])
    return watch, tmp_path / "whole"


def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Watch, Path]]:
    """A function that trains the run of some settings when first called with them; what it gives is only read."""

    @cache
    def run(*more: str) -> tuple[Watch, Path]:
        place = tmp_path_factory.mktemp("left_alone")
        return whole(place, overrides(place, *more))

    return run


def stopped_and_resumed(tmp_path: Path, given: list[str], stops: list[Watch]) -> tuple[list[Any], Path]:
    """Stop at each watch's step, resume each time, and join what they saw."""
    folder, seen = tmp_path / "parts", []
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, if these tests run under it, would let it be ignored
    for stop in stops:
        watch = Watch(stop.stop_at, stop.number, validating=stop.validating)  # those of a case serve several tests
        with pytest.raises(SystemExit) as leave:
            fine_tune(settings(*given) if not seen else again(folder), folder, callbacks=[watch])
        assert leave.value.code == 128 + watch.number
        assert RunDirectory(folder).read_manifest()["status"] == "pre-empted"
        seen += watch.seen
    last = Watch()
    fine_tune(again(folder), folder, callbacks=[last])
    return seen + last.seen, folder


def again(folder: Path) -> Any:
    return validate_config(resume_config(config(f"resume={folder}"), [f"resume={folder}"]))


CASES = {
    "in mid-epoch": ([Watch(4)], []),
    "at an epoch's last step": ([Watch(STEPS)], []),
    "three times": ([Watch(1), Watch(4), Watch(8)], []),
    "while it validates": ([Watch(STEPS, validating=True)], []),
    "with loader processes": ([Watch(5)], ["data.workers=2"]),
    "with validations inside the epoch": (
        [Watch(4)],
        ["trainer.val_check_interval=2", "trainer.check_val_every_n_epoch=null"],
    ),
    "by Ctrl-C": ([Watch(7, signal.SIGINT)], []),
    "by a queue that takes the machine away": ([Watch(4, signal.SIGUSR1)], []),
    "by a terminal that closes": ([Watch(8, signal.SIGHUP)], []),
    "before early stopping": ([Watch(5)], ["callbacks.patience=1", "lr=0.5", "max_epochs=8"]),
    "with a sum of steps": ([Watch(5)], ["max_steps=8"]),
}  # fmt: skip
