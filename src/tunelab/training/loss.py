"""The loss that training minimises: the task's own under noise, and R-Drop.

Validation never passes through here, so its loss is the plain one.  R-Drop makes two passes with different dropout
agree (Liang et al. 2021, R-Drop).

Shape letters: N supervised positions, V vocabulary, B sequences, C classes.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor
from transformers import PreTrainedModel

from tunelab.config.schema import RegularizationConfig
from tunelab.data.examples import MicroBatch
from tunelab.regularization.model_support import mixout_weights
from tunelab.regularization.noise import Mixout, noisy_embeddings, skipped_layers
from tunelab.regularization.regularizer import NO_REGULARIZATION
from tunelab.tasks.base import Task


class TrainingLoss:
    """The task's own loss under noise, plus the R-Drop divergence of two passes.

    Args:
        task: Knows logits, loss and label smoothing.
        model: What is trained; as it is now it counts as pretrained.
        config: The block `regularization`.
        in_parts: Whether the task may compute its loss part by part, so that no logits are there to be looked at.
    """

    def __init__(
        self,
        task: Task,
        model: PreTrainedModel,
        config: RegularizationConfig = NO_REGULARIZATION,
        *,
        in_parts: bool = True,
    ) -> None:
        self.task, self.model, self.config, self.in_parts = task, model, config, in_parts
        self.mixout = (
            Mixout(task.logits, model, mixout_weights(model, task.head), config.mixout) if config.mixout else None
        )

    def __call__(self, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        """Logits of a micro-batch, and its loss summed, a float32 scalar with a graph.

        Where the task computes its loss part by part, there are no logits.
        """
        if self.mixout is None and not self.config.rdrop and self.in_parts:
            with self._noise(micro):
                return self.task.logits_and_loss(self.model, micro)
        logits = self._logits(micro)
        loss = self.task.loss_sum(logits, micro)
        if not self.config.rdrop:
            return logits, loss
        second = self._logits(micro)
        loss = (loss + self.task.loss_sum(second, micro)) / 2
        return logits, loss + self.config.rdrop * rdrop_divergence(self.task, logits, second, micro)

    def _logits(self, micro: MicroBatch) -> Tensor:
        """Logits of one forward pass, with noise drawn for it."""
        with self._noise(micro):
            if self.mixout is not None:
                return self.mixout.logits(micro)
            return self.task.logits(self.model, micro)

    @contextmanager
    def _noise(self, micro: MicroBatch) -> Iterator[None]:
        """Within this block a pass of the model has the noise of training."""
        with ExitStack() as noise:
            if self.config.neftune:
                noise.enter_context(noisy_embeddings(self.model, self.config.neftune, micro))
            if self.config.stochastic_depth:
                noise.enter_context(skipped_layers(self.model, self.config.stochastic_depth, micro))
            yield


def rdrop_divergence(task: Task, one: Tensor, other: Tensor, micro: MicroBatch) -> Tensor:
    """The disagreement of two passes, summed over a micro-batch: a float32 scalar.

    Args:
        task: Labels are compared by half the sum of both Kullback-Leibler divergences, numbers by their squared
            difference; several labels or numbers of a row by the mean over them.
        one: Logits of the first pass, (N, V) or (B, C).
        other: Logits of the second pass.
        micro: What passed through; fillers add nothing.
    """
    one, other = one.float(), other.float()
    if task.head == "sequence":
        real = micro.row_indices >= 0
        one, other = one[real], other[real]
    if task.name == "regression":
        return (one - other).square().mean(dim=1).sum()
    if getattr(task, "multilabel", False):
        return ((one.sigmoid() - other.sigmoid()) * (one - other)).mean(dim=1).sum() / 2
    return symmetric_kl(one.log_softmax(dim=-1), other.log_softmax(dim=-1)).sum()


def symmetric_kl(one: Tensor, other: Tensor) -> Tensor:
    """(KL(P|Q) + KL(Q|P)) / 2 from log-probabilities (N, V) of P and Q, (N,): the mean of (P - Q)(log P - log Q)."""
    return ((one.exp() - other.exp()) * (one - other)).sum(dim=-1) / 2
