"""Save between steps, and leave between steps when asked to."""

import signal
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from typing_extensions import override

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class SafePoint(Checkpoint):
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
        self.asked = 0  # the signal received, if any
        self.leaving = 0  # the exit status, once the checkpoint to go on from is written
        self.last = False  # whether the step just taken was its epoch's last

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for number in SIGNALS:  # here, not earlier: Lightning's own handlers deadlock with several ranks
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked == signal.SIGINT == number:  # a second Ctrl-C means now
            raise KeyboardInterrupt
        self.asked = number

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if 0 <= trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True  # so that the last steps of the run are validated too
        done = trainer.global_step if trainer.check_val_every_n_epoch is None else batch_idx + 1
        due = trainer.should_stop or done % (trainer.val_check_batch or 1) == 0
        validates = self.validates and trainer.enable_validation and due
        self.last = batch_idx + 1 == trainer.num_training_batches
        if not validates and not self.last:
            self._settle(trainer, trainer.should_stop or bool(self.every and trainer.global_step % self.every == 0))

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking and not self.last:
            self._settle(trainer, True)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.last:  # an epoch that was left early counts as a whole one here: a longer run would miss its rest
            self._settle(trainer, True)

    def _settle(self, trainer: L.Trainer, due: bool) -> None:
        # any rank's signal counts, and every rank learns of it at the same step
        leave = trainer.strategy.reduce_boolean_decision(bool(self.asked), all=False)
        if due or leave:
            trainer.save_checkpoint(self.path, weights_only=False)  # optimizer and loops too
        if leave:
            interrupted = trainer.strategy.reduce_boolean_decision(self.asked == signal.SIGINT, all=False)
            self.leaving = 128 + (signal.SIGINT if interrupted else signal.SIGTERM)

    def _leave(self, trainer: L.Trainer) -> None:
        """Exit on all ranks together; not where the file was saved, but at the next hook: what the step logged
        is written in between, and would otherwise be missing from the curves for good.
        """
        if self.leaving:
            trainer.strategy.barrier()
            raise SystemExit(self.leaving)

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._leave(trainer)
        loop = trainer.fit_loop.epoch_loop
        if loop._batches_that_stepped == trainer.global_step - 1:
            # saved in a validation that ended a run in mid-epoch: Lightning counts that step for the curves too late
            loop._batches_that_stepped += 1

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._leave(trainer)

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._leave(trainer)
