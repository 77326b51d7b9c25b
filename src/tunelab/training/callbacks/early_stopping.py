"""Stop where validation no longer improves."""

from typing import Any

import lightning as L
from lightning.pytorch import callbacks
from typing_extensions import override


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's, for runs that are resumed: one that ended by patience stays ended, unless its patience is raised.

    Lightning trains one more epoch each time, and reads the patience from the checkpoint.  A score that is not finite
    is no improvement; there it ends the run at once, so a correlation that is not defined yet would.

    Args:
        monitor: Name of the score, such as `val/loss`.
        mode: "min" or "max".
        patience: Validations in a row without improvement that end the run; from 1 on.
        min_delta: An improvement smaller than this does not count.
    """

    def __init__(self, monitor: str, *, mode: str, patience: int, min_delta: float) -> None:
        super().__init__(
            monitor,
            mode=mode,
            patience=patience,
            min_delta=min_delta,
            check_finite=False,
            check_on_train_epoch_end=False,  # a run resumed at an epoch's end has no validation to look at there
        )

    @property
    def patience_exhausted(self) -> bool:
        """Whether patience is at its end."""
        return self.wait_count >= self.patience

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.patience_exhausted:
            trainer.should_stop = True
            self.stopped_epoch = self.stopped_epoch or max(0, trainer.current_epoch - 1)  # with less patience than then
