"""The regularization of a run: the training loss, what follows each optimizer step, the average of the weights."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from tunelab.config.regularization_config import RegularizationConfig
from tunelab.regularization.averaging import WeightAverage, ema_share, swa_share
from tunelab.regularization.model_support import check_model_support
from tunelab.regularization.penalties import (
    apply_l1_proximal,
    apply_max_norm,
    trainable_linear_weights,
    update_in_place,
)
from tunelab.tasks.base import Task
from tunelab.training.training_loss import TrainingLoss

NO_REGULARIZATION = RegularizationConfig()


class Regularizer:
    """Stands around a model in training; touches only what learns.

    Attributes:
        loss: Logits and the loss of a micro-batch, under noise.
        averages: The average of the weights, where one is kept.

    Args:
        task: What is learned.
        model: What is trained; as it is now it counts as pretrained.
        wanted: What is asked for.
        total: Steps of the run.

    Raises:
        ConfigError: If the model gives a method nothing to work on.
    """

    def __init__(
        self, task: Task, model: PreTrainedModel, wanted: RegularizationConfig = NO_REGULARIZATION, total: int = 0
    ) -> None:
        check_model_support(task, model, wanted)
        self.wanted = wanted
        self.loss = TrainingLoss(task, model, wanted)
        self.bounded = list(trainable_linear_weights(model)) if wanted.max_norm else []
        share = ema_share(wanted.ema) if wanted.ema else swa_share(int(wanted.swa_start * total))
        kept = bool(wanted.ema) or wanted.swa_start < 1
        named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.averages = [WeightAverage(named, share)] if kept else []

    def after_step(self, optimizer: Any) -> dict[str, Tensor]:
        """Do what follows a step, while the gradients are still there.

        Args:
            optimizer: The one that has stepped, at the rate that it has stepped with.

        Returns:
            What is logged, by name.
        """
        found = {}
        bring = getattr(optimizer, "bring", update_in_place)
        if self.wanted.l1:
            found["train/sparsity"] = apply_l1_proximal(optimizer.param_groups, self.wanted.l1, bring)
        apply_max_norm(self.bounded, self.wanted.max_norm, bring)
        if (self.wanted.l1 or self.bounded) and hasattr(optimizer, "forget"):
            optimizer.forget()
        for average in self.averages:
            average.update()
        return found

    def state(self) -> dict[str, Any]:
        """What a checkpoint to go on from must hold."""
        return {"averages": [average.state() for average in self.averages]}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        for average, kept in zip(self.averages, state["averages"], strict=True):
            average.load(kept)
