"""Regularization after each optimizer step: sparsity, bounded weights, and the average of the weights.

Noise in the forward pass, R-Drop and label smoothing belong to the loss: `training/loss.py`.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from tunelab.config.schema import RegularizationConfig
from tunelab.regularization.averaging import WeightAverage, ema_share, swa_share
from tunelab.regularization.penalties import (
    apply_l1_proximal,
    apply_max_norm,
    trainable_linear_weights,
    update_in_place,
)

NO_REGULARIZATION = RegularizationConfig()


class Regularizer:
    """Changes weights after each optimizer step, and keeps their average; touches only what learns.

    Attributes:
        averages: The average of the weights, where one is kept; else empty.

    Args:
        model: What is trained.
        config: The block `regularization`.
        total_steps: Optimizer steps of the run.
    """

    def __init__(
        self, model: PreTrainedModel, config: RegularizationConfig = NO_REGULARIZATION, total_steps: int = 0
    ) -> None:
        self.config = config
        self.max_norm_weights = list(trainable_linear_weights(model)) if config.max_norm else []
        share = ema_share(config.ema) if config.ema else swa_share(int(config.swa_start * total_steps))
        keeps_average = bool(config.ema) or config.swa_start < 1
        trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.averages = [WeightAverage(trained, share)] if keeps_average else []

    def after_optimizer_step(self, optimizer: Any) -> dict[str, Tensor]:
        """Shrink and bound weights and update the average, while the gradients of the step are still there.

        Args:
            optimizer: The one that has stepped, at the rate that it has stepped with.

        Returns:
            What is logged, by name.
        """
        metrics = {}
        move_average = getattr(optimizer, "move_average", update_in_place)
        if self.config.l1:
            metrics["train/sparsity"] = apply_l1_proximal(optimizer.param_groups, self.config.l1, move_average)
        apply_max_norm(self.max_norm_weights, self.config.max_norm, move_average)
        if (self.config.l1 or self.max_norm_weights) and hasattr(optimizer, "reset_curvature"):
            optimizer.reset_curvature()
        for average in self.averages:
            average.update()
        return metrics

    def state(self) -> dict[str, Any]:
        """The averages, for a checkpoint to resume from."""
        return {"averages": [average.state() for average in self.averages]}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over the averages of a checkpoint."""
        for average, saved in zip(self.averages, state["averages"], strict=True):
            average.load(saved)
