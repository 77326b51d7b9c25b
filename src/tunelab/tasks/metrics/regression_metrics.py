"""Metrics of regression, in float64.  N records, C targets."""

from collections.abc import Sequence
from math import nan
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from typing_extensions import override

from tunelab.data.examples import MicroBatch
from tunelab.tasks.base import Scores
from tunelab.tasks.metrics.directions import REGRESSION_METRICS


def pearson(first: Tensor, second: Tensor) -> float:
    """Linear correlation of two float64 vectors, (N,); NaN where one of them is constant or not finite."""
    if len(first) == 0 or any(bool((values == values[0]).all()) for values in (first, second)):
        return nan
    left, right = first - first.mean(), second - second.mean()
    return float((left / left.norm() * (right / right.norm())).sum().clamp(-1, 1))


def average_ranks(values: Tensor) -> Tensor:
    """Ranks from 1, (N,) float64; equal values share the mean of their places, as `scipy.stats.rankdata`."""
    unique: tuple[Tensor, Tensor, Tensor] = torch.unique(values, return_inverse=True, return_counts=True)
    _, place, count = unique
    last = count.cumsum(dim=0).double()
    return (last - (count.double() - 1) / 2)[place]


def spearman(first: Tensor, second: Tensor) -> float:
    """Rank correlation, (N,); NaN where one of them is constant or not finite."""
    if not bool(first.isfinite().all() and second.isfinite().all()):
        return nan
    return pearson(average_ranks(first), average_ranks(second))


def r2_score(predicted: Tensor, true: Tensor) -> float:
    """Share of the variance of `true` that `predicted` explains, (N,); NaN below two records.

    Constant `true` gives 1 when every guess is right and 0 otherwise, as scikit-learn.
    """
    if len(true) <= 1:
        return nan
    missed = float((true - predicted).square().sum())
    spread = float((true - true.mean()).square().sum())
    if bool((true == true[0]).all()):
        return 0.0 if missed else 1.0
    return 1 - missed / spread


class GatheredPairs(Metric):
    """Every prediction and target so far, gathered whole over ranks: rank correlation needs them all."""

    full_state_update = False
    predicted: list[Tensor]
    true: list[Tensor]

    def __init__(self, width: int) -> None:
        """Start empty; `width` is C."""
        super().__init__()
        self.width = width
        self.add_state("predicted", default=[], dist_reduce_fx="cat")
        self.add_state("true", default=[], dist_reduce_fx="cat")

    @override
    def update(self, predicted: Tensor, true: Tensor) -> None:
        self.predicted.append(predicted)
        self.true.append(true)

    @override
    def compute(self) -> tuple[Tensor, Tensor]:
        return self._whole(self.predicted), self._whole(self.true)

    def _whole(self, state: list[Tensor] | Tensor) -> Tensor:
        """The state as (N, C) on the CPU; torchmetrics holds a list on one rank and a tensor after a gather."""
        parts = state if isinstance(state, list) else [state]
        return torch.cat(parts).cpu() if parts else torch.zeros(0, self.width, dtype=torch.float64)


class RegressionScores(Scores):
    """Scores in the user's units, plain means over the targets; `loss` alone is over standardised targets.

    A correlation is NaN where a target or its predictions are constant, since none is defined there.
    """

    higher_is_better = REGRESSION_METRICS

    def __init__(self, targets: Sequence[str], mean: Sequence[float], std: Sequence[float]) -> None:
        """Start from nothing; C names, and what standardisation subtracted and divided by."""
        super().__init__()
        self.targets = list(targets)
        self.mean = list(mean)
        self.std = list(std)
        self.pairs = GatheredPairs(len(self.targets))
        self.per_target: list[dict[str, Any]] | None = None

    @override
    def update(self, logits: Tensor, micro: MicroBatch) -> None:
        is_record = micro.row_indices >= 0
        self.pairs.update(logits[is_record].detach().double(), micro.targets[is_record].double())
        self.per_target = None

    @override
    def compute(self) -> dict[str, float]:
        predicted, true = self.pairs.compute()  # (N, C), standardised
        rows = [self._target(index, predicted[:, index], true[:, index]) for index in range(len(self.targets))]
        self.per_target = rows
        names = ("mse", "mae", "r2", "pearson", "spearman")
        return {
            "loss": float((predicted - true).square().mean()),
            **{name: sum(row[name] for row in rows) / len(rows) for name in names},
        }

    def _target(self, index: int, predicted: Tensor, true: Tensor) -> dict[str, Any]:
        scale, shift = self.std[index], self.mean[index]
        own, target = predicted * scale + shift, true * scale + shift
        return {
            "target": self.targets[index],
            "mse": float((own - target).square().mean()),
            "mae": float((own - target).abs().mean()),
            # Neither correlation nor share of variance has a unit; standardised values round less.
            "r2": r2_score(predicted, true),
            "pearson": pearson(predicted, true),
            "spearman": spearman(predicted, true),
            "support": len(true),
        }

    @override
    def reset(self) -> None:
        self.pairs.reset()
        self.per_target = None

    @override
    def report(self) -> dict[str, Any]:
        if self.per_target is None:
            self.compute()
        return {"per_target": self.per_target}
