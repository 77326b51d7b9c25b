"""How the gradients of each parameter spread, drawn by trackers that can."""

from lightning import Callback, LightningModule, Trainer
from torch.optim import Optimizer
from typing_extensions import override

from tunelab.tracking.showing import DrawsGradients


class GradientHistograms(Callback):
    """Draws the gradient of a whole step, as the optimizer sees it: after clipping, over all micro-batches and ranks.

    A hook on the parameters, as `wandb.watch` sets it, would see the part of one micro-batch.

    Args:
        every: Optimizer steps between two drawings; the first step is drawn.
    """

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        step = trainer.global_step
        if step % self.every or not trainer.is_global_zero:
            return
        found = {name: p.grad for name, p in pl_module.named_parameters() if p.grad is not None}
        for logger in trainer.loggers:
            if isinstance(logger, DrawsGradients):
                logger.log_histograms(found, step)
