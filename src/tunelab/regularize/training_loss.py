"""The loss that training lowers; validation never passes through here, so its loss is the plain one."""

from contextlib import ExitStack

from torch import Tensor
from transformers import PreTrainedModel

from tunelab.data.examples import Micro
from tunelab.regularize.agreement import divergence_sum
from tunelab.regularize.fitting import mixable
from tunelab.regularize.mixout import Mixout
from tunelab.regularize.neftune import noisy_embeddings
from tunelab.regularize.stochastic_depth import skipped_layers
from tunelab.regularize.wanted import Wanted
from tunelab.tasks.base import Task


class TrainingLoss:
    """The task's own loss under noise, and the price of two passes that disagree.

    Args:
        task: Smooths labels by itself.
        model: What is trained; as it is now it counts as pretrained.
        wanted: What is asked for.
    """

    def __init__(self, task: Task, model: PreTrainedModel, wanted: Wanted) -> None:
        self.task, self.model, self.wanted = task, model, wanted
        self.mixout = Mixout(task, model, mixable(task, model), wanted.mixout) if wanted.mixout else None

    def __call__(self, micro: Micro) -> tuple[Tensor, Tensor]:
        """Logits of a micro-batch, and its loss summed, a float32 scalar with a graph."""
        logits = self._logits(micro)
        loss = self.task.loss_sum(logits, micro)
        if not self.wanted.rdrop:
            return logits, loss
        again = self._logits(micro)
        loss = (loss + self.task.loss_sum(again, micro)) / 2
        return logits, loss + self.wanted.rdrop * divergence_sum(self.task, logits, again, micro)

    def _logits(self, micro: Micro) -> Tensor:
        """One pass, with its own noise."""
        with ExitStack() as noise:
            if self.wanted.neftune:
                noise.enter_context(noisy_embeddings(self.model, self.wanted.neftune, micro))
            if self.wanted.stochastic_depth:
                noise.enter_context(skipped_layers(self.model, self.wanted.stochastic_depth, micro))
            if self.mixout is not None:
                return self.mixout.logits(micro)
            return self.task.logits(self.model, micro)
