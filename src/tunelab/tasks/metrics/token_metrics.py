"""Metrics of next-token prediction: loss, perplexity, token accuracy.

Shape letters: N supervised positions, V vocabulary.
"""

from math import exp, nan

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import SumMetric
from typing_extensions import override

from tunelab.data.examples import IGNORE, MicroBatch
from tunelab.tasks.base import Scores
from tunelab.tasks.metrics.directions import TOKEN_METRICS

MAX_EXPONENT = 700.0  # exp of more overflows a float


class TokenScores(Scores):
    """Loss in nats per supervised token, perplexity, share of tokens whose best guess is right.

    Counted in double: float32 stops counting at 16.7 million tokens.
    """

    higher_is_better = TOKEN_METRICS

    def __init__(self) -> None:
        super().__init__()
        self.loss, self.correct, self.count = (
            SumMetric(nan_strategy="disable").set_dtype(torch.float64) for _ in range(3)
        )

    @override
    def update(self, logits: Tensor, micro: MicroBatch) -> None:
        targets = micro.targets[micro.targets != IGNORE]  # (N,)
        self.loss.update(functional.cross_entropy(logits.float(), targets, reduction="sum").double())
        self.correct.update((logits.argmax(-1) == targets).sum().double())
        self.count.update(targets.numel())

    @override
    def compute(self) -> dict[str, float]:
        count = float(self.count.compute())
        loss = float(self.loss.compute()) / count if count else nan
        return {
            "loss": loss,
            "perplexity": exp(min(loss, MAX_EXPONENT)),
            "token_accuracy": float(self.correct.compute()) / count if count else nan,
        }

    @override
    def reset(self) -> None:
        for metric in (self.loss, self.correct, self.count):
            metric.reset()
