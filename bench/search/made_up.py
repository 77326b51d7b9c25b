"""What made-up fine-tunings share: a curve from a formula for the loss, what it is worth, and its lowest point."""

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Any

from problem import Params
from scipy.optimize import differential_evolution

from tunelab.search.space import Choice, NumericRange

Truth = Callable[[Params, int], float]  # the loss after an epoch, without noise; infinite where the run diverges


def logged(truth: Truth, params: Params, epochs: int, dice: Random, *, shift: float, noise: float) -> list[float]:
    """The losses that a run would log, one for each epoch; it ends where it diverges.

    Args:
        truth: The formula.
        params: A configuration.
        epochs: Of a whole run.
        dice: The chance of this run.
        shift: How far all of it lies from the truth.
        noise: Standard deviation of an epoch around that.
    """
    found: list[float] = []
    for epoch in range(1, epochs + 1):
        value = truth(params, epoch)
        if math.isinf(value):
            return found
        found.append(value + shift + dice.gauss(0.0, noise))
    return found


def worth(truth: Truth, params: Params, epochs: int) -> float:
    """What a configuration is worth: its best epoch, as early stopping would keep it, without noise."""
    return min(truth(params, epoch) for epoch in range(1, epochs + 1))


def lowest(
    known: Mapping[str, Choice | NumericRange], final: Callable[[Params], float], fixed: Params = MappingProxyType({})
) -> float:
    """The lowest worth, by differential evolution; a choice is searched by its place.

    A whole number on a logarithmic scale counts as any number, so that the result is a bound for it.

    Args:
        known: What varies.
        final: The worth of a configuration.
        fixed: What does not vary.
    """
    ends, whole = list[tuple[float, float]](), list[bool]()
    for found in known.values():
        if isinstance(found, Choice):
            ends.append((0, len(found.values) - 1))
        else:
            ends.append((math.log(found.low), math.log(found.high)) if found.log else (found.low, found.high))
        whole.append(isinstance(found, Choice) or (found.integer and not found.log))

    def value(point: Sequence[float]) -> float:
        params: dict[str, Any] = dict(fixed)
        for (key, found), x in zip(known.items(), point, strict=True):
            if isinstance(found, Choice):
                params[key] = found.values[round(x)]
            else:
                params[key] = math.exp(x) if found.log else round(x) if found.integer else x
        return min(final(params), 1e9)

    return float(differential_evolution(value, ends, seed=0, tol=1e-10, maxiter=400, integrality=whole).fun)
