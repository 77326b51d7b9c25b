"""The range test of learning rates: rates rise by a constant factor from step to step while the loss is watched.

After Smith (2017), "Cyclical Learning Rates for Training Neural Networks".  Pure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

KEPT = 0.8  # share of the running mean that a new loss leaves as it was
AROUND = 5  # losses on either side that a point of the smoothed curve is the mean of
FALL = 0.02  # share of the first loss that the curve must fall by, for a suggestion


@dataclass(frozen=True)
class RangeTest:
    """What a range test found.

    Attributes:
        rates: Of each step that was taken.
        losses: Before each of those steps.
        diverged: The rate at which the loss left; None where it never did.
    """

    rates: list[float]
    losses: list[float]
    diverged: float | None

    @property
    def smooth(self) -> list[float]:
        """Losses, each the mean of those around it: it lags behind none of them, as a running mean would."""
        return [
            mean(self.losses[place - reach : place + reach + 1])
            for place in range(len(self.losses))
            for reach in [min(AROUND, place, len(self.losses) - 1 - place)]
        ]

    @property
    def lowest(self) -> int:
        """The step with the lowest smoothed loss."""
        return self.smooth.index(min(self.smooth))

    @property
    def fastest(self) -> int | None:
        """The step at which the smoothed loss falls by the largest share of itself; None if it never falls.

        Looked for up to the lowest point: what comes after it is on the way out.
        """
        curve, lowest = self.smooth, self.lowest
        if lowest < 2 or curve[lowest] > curve[0] - FALL * abs(curve[0]):
            return None
        changes = [(curve[at + 1] - curve[at - 1]) / max(abs(curve[at]), 1e-300) for at in range(1, lowest)]
        return 1 + changes.index(min(changes))

    @property
    def suggestion(self) -> float | None:
        """A rate half-way, by factors, from the fastest fall to the lowest point; None if the loss never falls.

        The first alone is low, since each step adds to what those before have gained; the second is near divergence.
        """
        return None if self.fastest is None else math.sqrt(self.rates[self.fastest] * self.rates[self.lowest])


def rising(middle: float, decades: float, count: int) -> list[float]:
    """`count` rates, each the same factor above the one before, `decades` powers of ten to either side of `middle`."""
    return [middle * 10 ** (decades * (2 * place / (count - 1) - 1)) for place in range(count)]


class Watch:
    """Tells when a loss has left for good.

    It has when it is no finite number, or when its running mean is above the best so far by as much as that best, or
    by half of all that was gained, whichever is more.
    """

    def __init__(self) -> None:
        self.sum = self.weight = 0.0
        self.first: float | None = None
        self.best = math.inf

    def left(self, loss: float) -> bool:
        """Whether it has, by this loss."""
        if not math.isfinite(loss):
            return True
        self.sum, self.weight = KEPT * self.sum + (1 - KEPT) * loss, KEPT * self.weight + (1 - KEPT)
        now = self.sum / self.weight
        self.first = now if self.first is None else self.first
        self.best = min(self.best, now)
        return now > self.best + max(abs(self.best), (self.first - self.best) / 2)


def ended(rates: Sequence[float], losses: Sequence[float], *, left: bool) -> RangeTest:
    """A range test that has come to its end.

    Args:
        rates: Those that were to be tried.
        losses: Before each step that was taken, at `rates` from the first on; where the last one is not finite, that
            step was not taken.
        left: Whether the loss left: by the last one, which is what the step before has led to.
    """
    kept = [loss for loss in losses if math.isfinite(loss)]
    return RangeTest(list(rates[: len(kept)]), kept, rates[max(0, len(losses) - 2)] if left else None)
