"""Lower the learning rate when validation stands still."""

from typing import cast

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch.optim.lr_scheduler import LambdaLR
from typing_extensions import override

from tunelab.optim.schedules import ValidationSchedule


class ReduceOnPlateau(Callback):
    """Hands a `Plateau` each validation's score, and puts the new rate into the optimizer at once.

    Before checkpoints are written, so that a resumed run neither forgets a validation nor counts it twice.

    Args:
        monitor: Name of the score, such as `val/loss`.
        mode: "min" or "max".
    """

    def __init__(self, monitor: str, mode: str) -> None:
        self.monitor, self.mode = monitor, mode

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.global_step:
            return
        score = float(trainer.callback_metrics.get(self.monitor, float("nan")))
        for config in trainer.lr_scheduler_configs:
            scheduler = cast(LambdaLR, config.scheduler)
            plateaus = {id(part): part for part in scheduler.lr_lambdas if isinstance(part, ValidationSchedule)}
            lowered = [plateau.observe(score, self.mode) for plateau in plateaus.values()]
            if not any(lowered):
                continue
            rates = [
                peak * factor(scheduler.last_epoch)
                for peak, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
            ]
            for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            scheduler._last_lr = rates
