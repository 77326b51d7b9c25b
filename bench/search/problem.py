"""The problem that a search is replayed on: a space, and the curve of every configuration in it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tunelab.search.space import Space

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Problem:
    """A search with known answers.

    Attributes:
        space: What may be tried.
        epochs: Validations of a whole run.
        trials: Whole runs that the budget pays for.
        curve: The losses that a run would log, one for each epoch, by configuration and seed of the search; shorter
            where it diverges.
        final: What a configuration is worth without chance: its best epoch, as early stopping would keep it.
        lowest: The best of these values.
    """

    space: Space
    epochs: int
    trials: int
    curve: Callable[[Params, int], list[float]]
    final: Callable[[Params], float]
    lowest: float
