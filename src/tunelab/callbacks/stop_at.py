"""Leave a training after a given step, as if a signal had come then."""

import os
import signal
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from typing_extensions import override


class StopAt(Callback):
    """Asks for a safe point once `step` optimizer steps are done; `SafePoint` saves and leaves."""

    def __init__(self, step: int) -> None:
        self.step = step

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step >= self.step:
            os.kill(os.getpid(), signal.SIGTERM)
