"""A small model on top of members: how much of each to believe, class by class, learned on validation.  Pure.

Shape letters: K members, N rows, C classes or targets.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Figures = NDArray[np.float64]
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)  # pull towards the plain mean that cross-validation chooses from
FOLDS = 5

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Stack:
    """The model on top: output c is the sum over members of `weights[k, c] * input[k, n, c]`, plus `bias[c]`.

    Attributes:
        weights: (K, C).
        bias: (C,).
        strength: Of the pull towards the plain mean of the members.
    """

    weights: Figures
    bias: Figures
    strength: float

    def __call__(self, inputs: Figures) -> Figures:
        """Inputs (K, N, C) to outputs (N, C)."""
        found: Figures = np.einsum("kc,knc->nc", self.weights, inputs) + self.bias
        return found


def classes(outputs: Tensor, wanted: Tensor) -> Tensor:
    """Mean cross-entropy: outputs (N, C) against class indices (N,)."""
    return F.cross_entropy(outputs, wanted)


def labels(outputs: Tensor, wanted: Tensor) -> Tensor:
    """Mean binary cross-entropy: outputs (N, C) against 0 and 1, (N, C)."""
    return F.binary_cross_entropy_with_logits(outputs, wanted)


def squares(outputs: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error: outputs and wanted (N, C)."""
    return F.mse_loss(outputs, wanted)


def fit_stack(inputs: Figures, wanted: NDArray[np.generic], loss: Loss) -> Stack:
    """Fit on validation rows (Wolpert 1992), pulled towards the plain mean as strongly as cross-validation says.

    Without the pull a few hundred rows would be learned by heart.

    Args:
        inputs: Log-probabilities, logits or standardised numbers, (K, N, C).
        wanted: As `loss` takes it.
        loss: Convex in the outputs.
    """
    given, right = torch.from_numpy(inputs), torch.from_numpy(wanted)
    order = torch.from_numpy(np.random.default_rng(0).permutation(given.shape[1]))
    folds = min(FOLDS, len(order))
    costs = []
    for strength in STRENGTHS:
        cost = 0.0
        for fold in range(folds if folds > 1 else 0):
            held = order[fold::folds]
            rest = order[torch.arange(len(order)) % folds != fold]
            weights, bias = solve(given[:, rest], right[rest], loss, strength)
            cost += float(loss(apply(weights, bias, given[:, held]), right[held])) * len(held)
        costs.append(cost)
    strength = STRENGTHS[int(np.argmin(costs))]
    weights, bias = solve(given, right, loss, strength)
    return Stack(weights.numpy(), bias.numpy(), strength)


def apply(weights: Tensor, bias: Tensor, inputs: Tensor) -> Tensor:
    """As `Stack`, on tensors."""
    return torch.einsum("kc,knc->nc", weights, inputs) + bias


def solve(inputs: Tensor, wanted: Tensor, loss: Loss, strength: float) -> tuple[Tensor, Tensor]:
    """Weights (K, C) and bias (C,) that minimise loss plus `strength` times their squared distance from the mean."""
    members, _, width = inputs.shape
    plain = torch.full((members, width), 1 / members, dtype=inputs.dtype)
    weights, bias = plain.clone().requires_grad_(), torch.zeros(width, dtype=inputs.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights, bias], max_iter=200, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        pull = (weights - plain).square().sum() + bias.square().sum()
        cost = loss(apply(weights, bias, inputs), wanted) + strength * pull / width
        cost.backward()
        return cost

    with torch.enable_grad():
        optimizer.step(closure)
    return weights.detach(), bias.detach()
