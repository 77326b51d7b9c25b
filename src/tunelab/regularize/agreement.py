"""R-Drop: two passes with different dropout shall agree (Liang et al. 2021, R-Drop).

Shape letters: N supervised positions, V vocabulary, B sequences, C classes.
"""

from torch import Tensor

from tunelab.data.examples import Micro
from tunelab.tasks.base import Task


def divergence_sum(task: Task, one: Tensor, other: Tensor, micro: Micro) -> Tensor:
    """How far two passes disagree, summed over a micro-batch: a float32 scalar.

    Args:
        task: Labels are compared by half the sum of both Kullback-Leibler divergences, numbers by their squared
            difference; several labels or numbers of a row by the mean over them.
        one: Logits of the first pass, (N, V) or (B, C).
        other: Logits of the second pass.
        micro: What passed through; fillers add nothing.
    """
    one, other = one.float(), other.float()
    if task.head == "sequence":
        taught = micro.rows >= 0
        one, other = one[taught], other[taught]
    if task.name == "regression":
        return (one - other).square().mean(dim=1).sum()
    if getattr(task, "multilabel", False):
        return ((one.sigmoid() - other.sigmoid()) * (one - other)).mean(dim=1).sum() / 2
    return both_ways(one.log_softmax(dim=-1), other.log_softmax(dim=-1)).sum()


def both_ways(one: Tensor, other: Tensor) -> Tensor:
    """(KL(P|Q) + KL(Q|P)) / 2 from log-probabilities (N, V) of P and Q, (N,): the mean of (P - Q)(log P - log Q)."""
    return ((one.exp() - other.exp()) * (one - other)).sum(dim=-1) / 2
