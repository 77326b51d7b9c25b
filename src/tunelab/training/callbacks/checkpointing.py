"""Callbacks that save checkpoints: the best, the last (also on a signal), snapshots at evenly spaced steps."""

import os
import signal
import threading
from math import isfinite
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, Checkpoint
from typing_extensions import override

from tunelab.optim.schedules import warmup_steps
from tunelab.runs.checkpoint import keep_previous
from tunelab.runs.console import is_main_process
from tunelab.runs.stop_signals import STOP_SIGNALS, handle_stop_signals
from tunelab.runs.terminal import LiveLines


class BestCheckpoint(Checkpoint):
    """Saves the weights whenever `monitor` improves.  A score that is not finite never counts as best.

    Args:
        path: Where the one best checkpoint lies; it is replaced as a whole.
        monitor: Name of the score, such as `val/loss`.
        mode: "min" or "max".

    Attributes:
        score: Best value so far, or None.
        step: Optimizer steps taken when it was reached.
        scores: All scores of that validation.
    """

    def __init__(self, path: Path, *, monitor: str, mode: str) -> None:
        self.path, self.monitor, self.mode = path, monitor, mode
        self.score: float | None = None
        self.step = 0
        self.scores: dict[str, float] = {}

    @property
    @override
    def state_key(self) -> str:
        return f"BestCheckpoint[{self.monitor}]"

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        scores = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        score = scores.get(self.monitor, float("nan"))
        if not isfinite(score) or (self.score is not None and not self.is_better(score, self.score)):
            return
        self.score, self.step, self.scores = score, trainer.global_step, scores
        trainer.save_checkpoint(self.path, weights_only=True)

    def is_better(self, new: float, old: float) -> bool:
        """Whether `new` beats `old`; a tie keeps the earlier weights."""
        return new < old if self.mode == "min" else new > old

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "step": self.step, "scores": self.scores}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.path.exists():  # else the best is chosen anew: a score without its weights is worth nothing
            self.score, self.step, self.scores = state_dict["score"], state_dict["step"], state_dict["scores"]


class LastCheckpoint(Checkpoint):
    """Saves `last.ckpt` at every validation and epoch end and every `every` steps; on a signal it saves and exits.

    A subclass of Checkpoint, so that it runs after EarlyStopping; it is listed after `BestCheckpoint`, so that the
    file knows the newest best.  Where a validation or the epoch's end follows a step it waits for that: a run
    resumed from before it would skip a validation that was due.

    Args:
        path: The file to write.
        every: Steps between further saves; 0 saves at validations and epoch ends only.
        validates: Whether there are rows to validate; Lightning takes an empty loader for a reason to.
    """

    def __init__(self, path: Path, every: int = 0, *, validates: bool = True) -> None:
        self.path, self.every, self.validates = path, every, validates
        self.signal_received = 0  # its number; 0 without one
        self.saved_step: int | None = None  # optimizer steps in the file; None without one
        self.exit_status = 0  # once the checkpoint to resume from is written
        self.is_epoch_end = False  # whether the step just taken was its epoch's last

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # signals reach the main thread alone: one that calls a training from another handles them itself
        self.saved_step = trainer.global_step or None  # what a resumed run goes on from
        handle_stop_signals(self._receive_signal)  # not earlier: Lightning's own deadlock with several ranks

    def _receive_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal_received == signal.SIGINT == number:  # a second Ctrl-C means now
            raise KeyboardInterrupt
        if number == signal.SIGINT and is_main_process():
            if LiveLines.current is not None:
                LiveLines.current.leave()
            # print may be at work
            os.write(2, b"\nstopping after the next checkpoint is saved; press Ctrl-C again to stop at once\n")
        self.signal_received = self.signal_received or number

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if 0 <= trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True  # so that the last steps of the run are validated too
        done = trainer.global_step if trainer.check_val_every_n_epoch is None else batch_idx + 1
        due = trainer.should_stop or done % (trainer.val_check_batch or 1) == 0
        validates = self.validates and trainer.enable_validation and due
        self.is_epoch_end = batch_idx + 1 == trainer.num_training_batches
        if not validates and not self.is_epoch_end:
            self._save_if_due(
                trainer, trainer.should_stop or bool(self.every and trainer.global_step % self.every == 0)
            )

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking and not self.is_epoch_end:
            self._save_if_due(trainer, True)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.is_epoch_end:  # one that was left early counts as a whole epoch here: a longer run would miss its rest
            self._save_if_due(trainer, True)

    def _save_if_due(self, trainer: L.Trainer, due: bool) -> None:
        # any rank's signal counts, and every rank learns of it at the same step
        leave = trainer.strategy.reduce_boolean_decision(bool(self.signal_received), all=False)
        if due or leave:
            if trainer.is_global_zero:
                keep_previous(self.path, self.path.with_name("previous.ckpt"))
            trainer.save_checkpoint(self.path, weights_only=False)  # optimizer and loops too
            self.saved_step = trainer.global_step
        if leave:
            received = [
                number
                for number in STOP_SIGNALS
                if trainer.strategy.reduce_boolean_decision(self.signal_received == number, all=False)
            ]
            self.exit_status = 128 + received[0]

    def _exit_if_requested(self, trainer: L.Trainer) -> None:
        """Exit on all ranks together; not where the file was saved, but at the next hook: what the step logged
        is written in between, and would otherwise be missing from the curves for good.
        """
        if self.exit_status:
            trainer.strategy.barrier()
            raise SystemExit(self.exit_status)

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._exit_if_requested(trainer)
        loop = trainer.fit_loop.epoch_loop
        if loop._batches_that_stepped == trainer.global_step - 1:
            # saved in a validation that ended a run in mid-epoch: Lightning counts that step for the curves too late
            loop._batches_that_stepped += 1

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._exit_if_requested(trainer)

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._exit_if_requested(trainer)


def snapshot_steps(total: int, count: int, warmup: int = 0) -> list[int]:
    """Optimizer steps after which weights are kept: the ends of `count` equal parts of what follows the warm-up."""
    return sorted({warmup + round((total - warmup) * (index + 1) / count) for index in range(count)} - {0})


class SnapshotCheckpoints(Checkpoint):
    """Saves `snapshot_<step>.ckpt` at the end of each of `count` equal parts of the run.

    With `scheduler=cosine_restarts` and as many cycles these are the points where the rate has fallen to its floor
    (Huang et al. 2017, Snapshot ensembles).

    Args:
        folder: Where the files go.
        count: How many.
        warmup: Steps of rising rate before the first cycle; a share of the run below 1.
    """

    def __init__(self, folder: Path, count: int, warmup: float = 0.0) -> None:
        self.folder, self.count, self.warmup = folder, count, warmup
        self.steps: list[int] = []

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        total = int(trainer.num_training_batches) * int(trainer.max_epochs or 1)
        total = min(total, trainer.max_steps) if trainer.max_steps >= 0 else total
        self.steps = snapshot_steps(total, self.count, warmup_steps(self.warmup, total))

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step in self.steps:
            trainer.save_checkpoint(self.folder / f"snapshot_{trainer.global_step:07d}.ckpt", weights_only=True)


class StopAtStep(Callback):
    """Sends SIGTERM once `step` optimizer steps are done, so that `LastCheckpoint` saves and exits."""

    def __init__(self, step: int) -> None:
        self.step = step

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step >= self.step:
            os.kill(os.getpid(), signal.SIGTERM)
