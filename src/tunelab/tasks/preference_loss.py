"""The DPO and IPO losses of pairs of answers, from log-probabilities.  Pure.

Shape letters: B pairs, N supervised positions, V vocabulary.  A micro-batch of B pairs holds 2B sequences: chosen,
rejected, chosen, rejected, ...
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tunelab.data.examples import IGNORE, MicroBatch


def answer_lengths(micro: MicroBatch) -> Tensor:
    """Supervised tokens of each answer, (B, 2) int64: chosen, rejected."""
    taught = micro.targets != IGNORE
    if micro.document_starts is None:
        return taught.sum(1).view(-1, 2)
    return torch.stack([part.sum() for part in taught[0].split(micro.lengths.tolist())]).view(-1, 2)


def answer_log_probabilities(logits: Tensor, micro: MicroBatch) -> Tensor:
    """Log-probability of each answer given its prompt, (B, 2) float32: chosen, rejected.

    Args:
        logits: At the supervised positions, (N, V), in the order of `micro.targets`.
        micro: The pairs.
    """
    return sum_answers(
        -functional.cross_entropy(logits.float(), micro.targets[micro.targets != IGNORE], reduction="none"), micro
    )


def sum_answers(tokens: Tensor, micro: MicroBatch) -> Tensor:
    """Log-probability of each answer, (B, 2), from those of its tokens, (N,) in the order of `micro.targets`."""
    # parts are summed one by one: adding by index takes any order on a GPU, and a resumed run must be bit-equal
    parts = tokens.split(answer_lengths(micro).flatten().tolist())
    return torch.stack([part.sum() for part in parts]).view(-1, 2)


@dataclass(frozen=True)
class PreferenceLoss:
    """Loss of one pair from two log-ratios.

    Attributes:
        kind: "sigmoid" (DPO; Rafailov et al., 2023) or "ipo" (Azar et al., 2023, over log-ratios per token, as its
            authors and TRL compute it).
        beta: Strength of the pull to the reference; tau of IPO.
        label_smoothing: Chance that a pair is labelled the wrong way round (conservative DPO; Mitchell, 2023).
    """

    kind: str
    beta: float
    label_smoothing: float = 0.0

    def rewards(self, ratios: Tensor) -> Tensor:
        """Implicit rewards (B, 2) from log-ratios of policy and reference (B, 2)."""
        return self.beta * ratios

    def losses(self, ratios: Tensor, tokens: Tensor) -> Tensor:
        """Loss of each pair, (B,).

        Args:
            ratios: log p(answer) under the model less that under the reference, (B, 2).
            tokens: Length of each answer, (B, 2).
        """
        if self.kind == "ipo":
            gap = ratios / tokens.clamp(min=1)
            return (gap[:, 0] - gap[:, 1] - 1 / (2 * self.beta)).square()
        margin = self.beta * (ratios[:, 0] - ratios[:, 1])
        right, wrong = functional.logsigmoid(margin), functional.logsigmoid(-margin)
        return -(1 - self.label_smoothing) * right - self.label_smoothing * wrong
