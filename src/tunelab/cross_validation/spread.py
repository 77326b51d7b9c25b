"""Scores of several trainings as mean and spread.  Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Spread:
    """A score over the folds.

    Attributes:
        values: Of each fold; nan where it has no such score.
    """

    values: tuple[float, ...]

    @property
    def known(self) -> list[float]:
        """The values that are there."""
        return [value for value in self.values if not math.isnan(value)]

    @property
    def mean(self) -> float:
        """Over the folds that have it; nan where none has."""
        return fmean(self.known) if self.known else math.nan

    @property
    def std(self) -> float:
        """Standard deviation of the folds (over n - 1); nan of fewer than two."""
        return stdev(self.known) if len(self.known) > 1 else math.nan

    def told(self) -> dict[str, float]:
        """Mean and spread by name, in the order of a table."""
        return (
            {"mean": self.mean, "std": self.std, "min": min(self.known), "max": max(self.known)} if self.known else {}
        )


def spreads(scores: Sequence[Mapping[str, float]], prefix: str = "val/") -> dict[str, Spread]:
    """Every score whose name begins with a prefix, over the folds, in order of first appearance.

    Args:
        scores: By flat name, for each fold.
        prefix: Of the split that the folds were validated on.
    """
    names = dict.fromkeys(name for found in scores for name in found if name.startswith(prefix))
    return {name: Spread(tuple(float(found.get(name, math.nan)) for found in scores)) for name in names}
