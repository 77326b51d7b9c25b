"""A search may end its trial after any validation; every rank stops together."""

from collections.abc import Callable
from math import isfinite
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

Report = Callable[[float, int], bool]  # score and number of the validation to whether the trial shall stop


class Pruning(Callback):
    """Reports the monitored score of each validation, and stops where the search says so.

    Args:
        connect: Opens the line to the search; called on rank 0 only.
        monitor: The score to report.
    """

    def __init__(self, connect: Callable[[], Report], monitor: str) -> None:
        self.connect, self.monitor = connect, monitor
        self.report: Report | None = None
        self.validations = 0
        self.pruned = False

    @override
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self.report = self.connect()

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self.validations += 1
        value = float(trainer.callback_metrics[self.monitor])
        stop = self.report is not None and isfinite(value) and self.report(value, self.validations)
        self.pruned = bool(trainer.strategy.broadcast(stop))
        if self.pruned:
            trainer.should_stop = True

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"validations": self.validations}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validations = int(state_dict["validations"])
