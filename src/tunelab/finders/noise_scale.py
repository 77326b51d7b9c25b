"""The gradient noise scale: how many sequences a step can use before more of them stop paying.

After McCandlish, Kaplan, Amodei et al. (2018), "An Empirical Model of Large-Batch Training": tr(S) / |G|^2, S the
covariance of one sequence's gradient and G the gradient of all.  A step over B sequences makes 1 / (1 + scale / B) of
the progress that a step along G would.  Pure: gradients come in as vectors.

The paper takes the two from the norms at two batch sizes; here every piece of the data gives its own gradient, so S is
their sample covariance (the delta method where pieces weigh differently), which needs far fewer of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NoiseScale:
    """What pieces of the data say.

    Attributes:
        sequences: How many they were.
        noise: Trace of the covariance of one sequence's gradient.
        signal: Squared norm of the gradient of all, without what noise adds to it; 0 or less where noise hides it.
    """

    sequences: int
    noise: float
    signal: float

    @property
    def scale(self) -> float:
        """Sequences at which noise and gradient are equally large; infinite where noise hides the gradient."""
        return self.noise / self.signal if self.signal > 0 else math.inf

    def progress(self, batch_size: float) -> float:
        """Share of the progress of a step without noise that one over so many sequences makes."""
        return 1 / (1 + self.scale / batch_size)


class Pieces:
    """Adds up pieces of the data, each of the same number of sequences, one after another.

    Beside the gradients themselves it takes twice the memory of one.
    """

    def __init__(self) -> None:
        self.count = self.sequences = 0
        self.total: list[Tensor] = []  # sum of gradients of summed losses
        self.weighed: list[Tensor] = []  # the same, each times its units
        self.units = self.units_squared = self.squares = 0.0

    def add(self, gradients: Sequence[Tensor], *, units: float, sequences: int) -> None:
        """Take a piece.

        Args:
            gradients: Of the summed loss, one tensor per parameter.
            units: What its loss would be divided by.
            sequences: How many it holds.
        """
        if not self.total:
            self.total = [torch.zeros_like(gradient, dtype=torch.float32) for gradient in gradients]
            self.weighed = [torch.zeros_like(gradient, dtype=torch.float32) for gradient in gradients]
        for total, weighed, gradient in zip(self.total, self.weighed, gradients, strict=True):
            total.add_(gradient)
            weighed.add_(gradient, alpha=units)
        self.squares += inner(gradients, gradients)
        self.units += units
        self.units_squared += units**2
        self.count += 1
        self.sequences += sequences

    @property
    def estimate(self) -> NoiseScale:
        """The two sizes.

        A piece with gradient g and units u departs from the mean gradient G by r = g - u G; the variance of G over
        `count` pieces is the sum of |r|^2 over their squared units, times count / (count - 1).
        """
        square = inner(self.total, self.total) / self.units**2  # |G|^2
        across = inner(self.total, self.weighed) / self.units
        departures = self.squares - 2 * across + square * self.units_squared
        variance = departures / self.units**2 * self.count / (self.count - 1)
        return NoiseScale(self.sequences, variance * self.sequences, square - variance)


def inner(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    """Inner product over all tensors, summed in double precision."""
    return sum(float((one.double() * other.double()).sum()) for one, other in zip(left, right, strict=True))
