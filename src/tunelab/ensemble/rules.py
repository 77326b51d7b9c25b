"""How outputs of members become outputs of an ensemble: fitted on validation, and made again from what was fitted.

Shape letters: K members, N rows, C classes or targets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.ensemble.combine import least_squares_weights, mean, mixture_weights, vote, vote_each
from tunelab.ensemble.labelled import Figures, Kind
from tunelab.ensemble.stacking import Stack, classes, fit_stack, labels, squares
from tunelab.tasks.classification import Classification


@dataclass
class Rule:
    """How outputs of members become outputs of the ensemble.

    Attributes:
        combine: Spoken outputs (K, N, C) to logits (N, C).
        weights: Of the members, where there are any.
        stack: The small model on top, where there is one.
    """

    combine: Callable[[Figures], Figures]
    weights: list[float] | None = None
    stack: Stack | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What was fitted beside the weights, plain values."""
        if self.stack is None:
            return {}
        top = self.stack
        return {"stack": {"weights": top.weights.tolist(), "bias": top.bias.tolist(), "strength": top.strength}}


def fit(method: str, kind: Kind, said: Figures, wanted: NDArray[Any]) -> Rule:
    """The rule of a method, fitted on validation.

    Args:
        method: soft, hard, weighted or stack.
        kind: Of the outputs.
        said: Spoken outputs on validation, (K, N, C).
        wanted: What is right there.
    """
    if method == "hard":
        return made(kind, None, None)
    if method == "soft":
        return made(kind, [1 / len(said)] * len(said), None)
    if method == "weighted":
        return made(kind, fitted_weights(kind, said, wanted).tolist(), None)
    loss = squares if kind.numbers else labels if kind.several else classes
    right = wanted.astype(np.float64) if kind.several else wanted
    return made(kind, None, fit_stack(as_inputs(kind, said), right, loss))


def made(kind: Kind, weights: Sequence[float] | None, stack: Stack | None) -> Rule:
    """The rule out of what was fitted: a weighted mean, a small model on top, or with neither a vote."""
    if stack is not None:
        top = stack
        return Rule(lambda table: top(as_inputs(kind, table)), None, top)
    if weights is not None:
        shares = list(weights)
        return Rule(lambda table: kind.logits(mean(table, shares)), shares)
    return Rule(lambda table: kind.logits(hard(kind, table)))


def as_inputs(kind: Kind, said: Figures) -> Figures:
    """Spoken outputs as a stack takes them: log-probabilities, logits, or numbers, (K, N, C)."""
    return np.stack([kind.logits(one) for one in said])


def hard(kind: Kind, said: Figures) -> Figures:
    """One vote a member; of numbers the median."""
    if kind.numbers:
        found: Figures = np.median(said, axis=0)
        return found
    if isinstance(kind.task, Classification) and kind.several:
        return vote_each(said, kind.task.threshold)
    return vote(said)


def fitted_weights(kind: Kind, said: Figures, wanted: NDArray[Any]) -> Figures:
    """Weights of a mean that fit validation best: by likelihood, for numbers by squared error; (K,)."""
    if kind.numbers:
        return least_squares_weights(said.reshape(len(said), -1), wanted.ravel())
    if kind.several:
        likely = np.where(wanted > 0, said, 1 - said)  # (K, N, C)
        return mixture_weights(likely.reshape(len(said), -1).T)
    return mixture_weights(said[:, np.arange(len(wanted)), wanted].T)
