"""What moves the weights after the optimizer has: a pull to exact zeros, a bound on their rows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tunelab.regularize.linear import Linear

Bring = Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]  # gives a weight its new value, and returns what that is


def replace(weight: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change a weight in place."""
    return weight.copy_(change(weight))


@torch.no_grad()
def soft_threshold(groups: Iterable[Mapping[str, Any]], strength: float, bring: Bring = replace) -> Tensor:
    """L1 by its proximal step, w -> sign(w) max(|w| - rate x strength, 0), so that weights become exactly zero.

    A gradient of |w| would only make them jump around zero (Parikh and Boyd 2014, Proximal Algorithms; Tibshirani 1996
    for the penalty).  Matrices that moved in this step are touched, like those that decay.

    Args:
        groups: Of the optimizer that has just stepped; each with its present rate.
        strength: Of the penalty.
        bring: What changes a weight.  Where an optimizer averages the points that its steps lead to, those are shrunk,
            and an entry that gets to zero is zero in the average too, which goes on from there.

    Returns:
        The share of exact zeros in those matrices; 0 where none moved.
    """
    zeros, entries = torch.zeros(()), 0
    for group in groups:
        bound = float(group["lr"]) * strength
        for weight in group["params"]:
            if weight.ndim >= 2 and weight.grad is not None:
                point = bring(weight, partial(functional.softshrink, lambd=bound))
                weight.masked_fill_(point == 0, 0)
                zeros = zeros.to(weight.device) + (weight == 0).sum()
                entries += weight.numel()
    return zeros / max(entries, 1)


@torch.no_grad()
def bound_rows(layers: Sequence[Linear], longest: float, bring: Bring = replace) -> None:
    """Max-norm: scale down each row, what one unit takes in, that is longer than `longest` (Srivastava et al. 2014).

    Args:
        layers: Linear layers; those that did not move in this step are left alone.
        longest: Largest Euclidean norm of a row.
        bring: What changes a weight; an optimizer that averages changes the points that it averages, as a mean of
            bounded rows is bounded.
    """
    for layer in layers:
        if layer.weight.grad is not None:
            bring(layer.weight, partial(torch.renorm, p=2, dim=layer.units, maxnorm=longest))
