"""Keep the weights at evenly spaced steps: models that differ, for the price of one training."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from typing_extensions import override

from tunelab.optim.schedules import warmup_steps


def snapshot_steps(total: int, count: int, warmup: int = 0) -> list[int]:
    """Optimizer steps after which weights are kept: the ends of `count` equal parts of what follows the warm-up."""
    return sorted({warmup + round((total - warmup) * (place + 1) / count) for place in range(count)} - {0})


class Snapshots(Checkpoint):
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
