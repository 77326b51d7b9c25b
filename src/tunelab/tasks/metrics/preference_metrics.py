"""Metrics of preference pairs: loss, reward accuracy, margin, rewards.  B pairs."""

from math import nan

import torch
from torch import Tensor
from torchmetrics import Metric
from typing_extensions import override

from tunelab.data.examples import MicroBatch
from tunelab.tasks.base import Scores
from tunelab.tasks.metrics.directions import PREFERENCE_METRICS
from tunelab.tasks.preference_loss import PreferenceLoss, answer_lengths


class PreferenceTotals(Metric):
    """The number of pairs and the sum of each score, in double, added up over ranks in one exchange."""

    full_state_update = False
    sums: Tensor

    def __init__(self) -> None:
        """Start at zero."""
        super().__init__()
        self.add_state(
            "sums", default=torch.zeros(1 + len(PREFERENCE_METRICS), dtype=torch.float64), dist_reduce_fx="sum"
        )

    @override
    def update(self, scores: Tensor) -> None:
        self.sums += scores.double().sum(0)

    @override
    def compute(self) -> Tensor:
        return self.sums


class PreferenceScores(Scores):
    """Mean over pairs: loss, share with the chosen answer above the rejected one, margin, and both rewards.

    A tie counts as wrong.
    """

    higher_is_better = PREFERENCE_METRICS

    def __init__(self, loss: PreferenceLoss) -> None:
        super().__init__()
        self.loss, self.totals = loss, PreferenceTotals()

    @override
    def update(self, logits: Tensor, micro: MicroBatch) -> None:
        """Take in pairs; `logits` are log-probabilities of the answers, (B, 2)."""
        ratios = log_ratios(logits.detach(), micro)
        chosen, rejected = self.loss.rewards(ratios).unbind(1)
        losses = self.loss.losses(ratios, answer_lengths(micro))
        columns = (torch.ones_like(losses), losses, chosen > rejected, chosen - rejected, chosen, rejected)
        self.totals.update(torch.stack([column.double() for column in columns], 1)[micro.row_indices >= 0])

    @override
    def compute(self) -> dict[str, float]:
        count, *sums = self.totals.compute().tolist()
        return {name: total / count if count else nan for name, total in zip(PREFERENCE_METRICS, sums, strict=True)}

    @override
    def reset(self) -> None:
        self.totals.reset()


def log_ratios(log_probabilities: Tensor, micro: MicroBatch) -> Tensor:
    """Log ratio of each answer's probability to that before training, in nats, (B, 2).

    Raises:
        RuntimeError: If the examples were laid out before the reference was taken.
    """
    if micro.reference_logprobs is None:
        raise RuntimeError("these pairs carry no reference log-probabilities; call Task.add_reference first")
    return log_probabilities - micro.reference_logprobs
