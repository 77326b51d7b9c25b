"""All that a run does against learning by heart, beside the optimizer's own weight decay."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from tunelab.regularize.after_step import bound_rows, replace, soft_threshold
from tunelab.regularize.average import Average, equal_from, moving
from tunelab.regularize.fitting import refuse_unfit
from tunelab.regularize.linear import linear_layers
from tunelab.regularize.training_loss import TrainingLoss
from tunelab.regularize.wanted import Wanted
from tunelab.tasks.base import Task

NEUTRAL = Wanted()


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

    def __init__(self, task: Task, model: PreTrainedModel, wanted: Wanted = NEUTRAL, total: int = 0) -> None:
        refuse_unfit(task, model, wanted)
        self.wanted = wanted
        self.loss = TrainingLoss(task, model, wanted)
        self.bounded = list(linear_layers(model)) if wanted.max_norm else []
        share = moving(wanted.ema) if wanted.ema else equal_from(int(wanted.swa_start * total))
        kept = bool(wanted.ema) or wanted.swa_start < 1
        named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.averages = [Average(named, share)] if kept else []

    def after_step(self, optimizer: Any) -> dict[str, Tensor]:
        """Do what follows a step, while the gradients are still there.

        Args:
            optimizer: The one that has stepped, at the rate that it has stepped with.

        Returns:
            What is logged, by name.
        """
        found = {}
        bring = getattr(optimizer, "bring", replace)
        if self.wanted.l1:
            found["train/sparsity"] = soft_threshold(optimizer.param_groups, self.wanted.l1, bring)
        bound_rows(self.bounded, self.wanted.max_norm, bring)
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
