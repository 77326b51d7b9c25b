"""A few real training steps that leave nothing behind but what they did to the model."""

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from tunelab.assemble import Prepared, make_data
from tunelab.data.examples import Step
from tunelab.equipment import make_trainer
from tunelab.module import FineTuner

QUIET = {"enable_progress_bar": False, "enable_checkpointing": False, "limit_val_batches": 0}
ALONE = {"devices": 1, "num_nodes": 1, "strategy": "auto"}  # a step is the same for any number of devices


def take_steps(
    prepared: Prepared,
    module: FineTuner,
    count: int,
    callbacks: Sequence[Callback],
    steps: Sequence[Step] | None = None,
) -> None:
    """Train with everything that is set, on one device, without validation, checkpoint or tracker; nothing is written.

    Args:
        prepared: What the run works with.
        module: Its training step; the model in it is changed, so do this inside `as_it_was`.
        count: Optimizer steps at most; epochs follow each other until then.
        callbacks: What watches, and may stop earlier.
        steps: What to train on; None takes the run's own order.

    Raises:
        Diverged: If training left the finite numbers.
    """
    trainer_block = {**prepared.settings.trainer, **QUIET, **ALONE}
    settings = replace(prepared.settings, max_steps=count, max_epochs=-1, trainer=trainer_block)
    given: Any = None if steps is None else list(steps)  # a list of its own is what DataLoader takes for a data set
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*have no `val_dataloader`")  # on purpose
        trainer = make_trainer(settings, Path(folder), callbacks, [])
        try:
            if given is None:
                trainer.fit(module, datamodule=make_data(prepared))
            else:
                trainer.fit(module, DataLoader(given, batch_size=None, collate_fn=lambda step: step))
        finally:
            module.epoch_loss.reset()
            module.trainer = None
