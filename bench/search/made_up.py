"""Shared by made-up fine-tunings: a curve from a formula for the loss, its true value, and the lowest one."""

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Any

from problem import Params
from scipy.optimize import differential_evolution

from tunelab.search.space import Choice, NumericRange

Truth = Callable[[Params, int], float]  # the loss after an epoch, without noise; infinite where the run diverges


def sample_curve(truth: Truth, params: Params, epochs: int, rng: Random, *, shift: float, noise: float) -> list[float]:
    """The losses that a run would log, one for each epoch; it ends where it diverges.

    Args:
        truth: The formula.
        params: A configuration.
        epochs: Number of epochs.
        rng: Random numbers of this run.
        shift: Offset of the whole curve from the truth.
        noise: Standard deviation of an epoch around that.
    """
    losses: list[float] = []
    for epoch in range(1, epochs + 1):
        value = truth(params, epoch)
        if math.isinf(value):
            return losses
        losses.append(value + shift + rng.gauss(0.0, noise))
    return losses


def true_value(truth: Truth, params: Params, epochs: int) -> float:
    """The true value of a configuration: its best epoch, as early stopping keeps it, without noise."""
    return min(truth(params, epoch) for epoch in range(1, epochs + 1))


def lowest(
    dimensions: Mapping[str, Choice | NumericRange],
    final: Callable[[Params], float],
    fixed: Params = MappingProxyType({}),
) -> float:
    """The lowest true value, by differential evolution; a choice is searched by its index.

    An integer on a log scale counts as any number, so that the result is a bound for it.

    Args:
        dimensions: The settings that vary.
        final: The true value of a configuration.
        fixed: The settings that do not vary.
    """
    ends, whole = list[tuple[float, float]](), list[bool]()
    for dimension in dimensions.values():
        if isinstance(dimension, Choice):
            ends.append((0, len(dimension.values) - 1))
        else:
            low, high = dimension.low, dimension.high
            ends.append((math.log(low), math.log(high)) if dimension.log else (low, high))
        whole.append(isinstance(dimension, Choice) or (dimension.integer and not dimension.log))

    def value(point: Sequence[float]) -> float:
        params: dict[str, Any] = dict(fixed)
        for (key, dimension), x in zip(dimensions.items(), point, strict=True):
            if isinstance(dimension, Choice):
                params[key] = dimension.values[round(x)]
            else:
                params[key] = math.exp(x) if dimension.log else round(x) if dimension.integer else x
        return min(final(params), 1e9)

    return float(differential_evolution(value, ends, seed=0, tol=1e-10, maxiter=400, integrality=whole).fun)
