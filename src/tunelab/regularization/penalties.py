"""Penalties on the weights, applied after the optimizer step: L1 by its proximal step, max-norm."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tunelab.models.sharding import gather_full, shard_like


@dataclass(frozen=True)
class LinearWeight:
    """The matrix of a linear layer.

    Attributes:
        name: Of the parameter.
        weight: Two dimensions.
        units: Which of them counts the units that the layer feeds.
    """

    name: str
    weight: nn.Parameter
    units: int


def trainable_linear_weights(model: PreTrainedModel) -> Iterator[LinearWeight]:
    """Every linear layer whose matrix learns; an output head that is tied to the embeddings is not among them."""
    table = getattr(model.get_input_embeddings(), "weight", None)
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | Conv1D) or not isinstance(weight := module.weight, nn.Parameter):
            continue
        if weight.requires_grad and weight is not table:
            yield LinearWeight(f"{name}.weight", weight, 1 if isinstance(module, Conv1D) else 0)


WeightUpdate = Callable[
    [Tensor, Callable[[Tensor], Tensor]], Tensor
]  # gives a weight its new value, and returns what that is


def update_in_place(weight: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change a weight in place."""
    return weight.copy_(change(weight))


@torch.no_grad()
def apply_l1_proximal(
    groups: Iterable[Mapping[str, Any]], strength: float, bring: WeightUpdate = update_in_place
) -> Tensor:
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
def apply_max_norm(layers: Sequence[LinearWeight], longest: float, bring: WeightUpdate = update_in_place) -> None:
    """Max-norm: scale down each row, what one unit takes in, that is longer than `longest` (Srivastava et al. 2014).

    Args:
        layers: Linear layers; those that did not move in this step are left alone.
        longest: Largest Euclidean norm of a row.
        bring: What changes a weight; an optimizer that averages changes the points that it averages, as a mean of
            bounded rows is bounded.
    """
    for layer in layers:
        if layer.weight.grad is not None:
            bring(layer.weight, partial(bound_rows, units=layer.units, longest=longest))


def bound_rows(weight: Tensor, *, units: int, longest: float) -> Tensor:
    """A matrix with no row of a unit longer than `longest`; a spread one is gathered for it."""
    return shard_like(torch.renorm(gather_full(weight), p=2, dim=units, maxnorm=longest), weight)
