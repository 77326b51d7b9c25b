"""Callbacks of a run that is a trial of a search: pruning, and the stages of population based training."""

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch.optim.lr_scheduler import LambdaLR
from typing_extensions import override

ScoreReporter = Callable[[float, int], bool]  # score and number of the validation to whether the trial shall stop


class Pruning(Callback):
    """Reports the monitored score of each validation, and stops where the search says so.

    Args:
        open_channel: Opens the channel to the search; called on rank 0 only.
        monitor: The score to report.
    """

    def __init__(self, open_channel: Callable[[], ScoreReporter], monitor: str) -> None:
        self.open_channel, self.monitor = open_channel, monitor
        self.report_score: ScoreReporter | None = None
        self.validations = 0
        self.pruned = False

    @override
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self.report_score = self.open_channel()

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self.validations += 1
        value = float(trainer.callback_metrics[self.monitor])
        stop = self.report_score is not None and isfinite(value) and self.report_score(value, self.validations)
        self.pruned = bool(trainer.strategy.broadcast(stop))
        if self.pruned:
            trainer.should_stop = True

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"validations": self.validations}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validations = int(state_dict["validations"])


class StopAtStageEnd(Callback):
    """Ends training at the first validation once a share of the run's steps is done.

    Args:
        stop_share: The share; 0 trains no step at all.
    """

    def __init__(self, stop_share: float) -> None:
        self.stop_share, self.stop_step = stop_share, 0

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.stop_step = round(self.stop_share * int(trainer.estimated_stepping_batches))
        self._end_if_due(trainer)

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._end_if_due(trainer)

    def _end_if_due(self, trainer: L.Trainer) -> None:
        if trainer.global_step >= self.stop_step:
            trainer.should_stop = True


class KeepOptimizerSettings(Callback):
    """Restores the optimizer's settings after its state was loaded from a checkpoint with other settings.

    Args:
        names: Entries of the parameter groups that are settings; the others are the optimizer's memory.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = {"initial_lr", *names}
        self.groups: list[dict[str, Any]] = []

    @override
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # before the state is loaded
        groups = trainer.optimizers[0].param_groups
        self.groups = [{name: group[name] for name in self.names & group.keys()} for group in groups]

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # and after
        schedule = cast(LambdaLR, trainer.lr_scheduler_configs[0].scheduler)
        schedule.base_lrs = [group["initial_lr"] for group in self.groups]
        for index, (group, own) in enumerate(zip(trainer.optimizers[0].param_groups, self.groups, strict=True)):
            group.update(own)
            group["lr"] = schedule.base_lrs[index] * schedule.lr_lambdas[index](schedule.last_epoch)
        schedule._last_lr = [group["lr"] for group in trainer.optimizers[0].param_groups]
