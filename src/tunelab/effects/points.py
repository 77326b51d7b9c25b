"""Trials as points: one for each configuration, over all its seeds.  Pure."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

SEED = "seed"


@dataclass(frozen=True)
class Trial:
    """A trial of a search, or a run of a set.

    Attributes:
        number: Of the trial; in a set, the place of the run.
        state: `complete`, `pruned` or `failed`.
        params: What varies, by name.
        value: The score; None without one.
        seconds: Time of the training.
        kind: Of a failure, such as `diverged`.
        reason: In words.
        curve: The score after each validation: (step or epoch, value).
        scores: Every final score.
        overrides: As on a command line.
        name: What it is called.
        origin: Who proposed it, such as `sampler` or `default`.
    """

    number: int
    state: str
    params: Mapping[str, Any]
    value: float | None
    seconds: float | None = None
    kind: str = ""
    reason: str = ""
    curve: tuple[tuple[float, float], ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    name: str = ""
    origin: str = ""

    @property
    def done(self) -> bool:
        """Whether it has a score to compare."""
        return self.state == "complete" and self.value is not None and math.isfinite(self.value)


@dataclass(frozen=True)
class Point:
    """A configuration.

    Attributes:
        params: Its settings, without the seed.
        costs: One for each seed; lower is better, whichever way the score goes.
        numbers: Of its trials.
    """

    params: Mapping[str, Any]
    costs: tuple[float, ...]
    numbers: tuple[int, ...]

    @property
    def cost(self) -> float:
        """The mean over the seeds."""
        return fmean(self.costs)


def points(trials: Sequence[Trial], *, lower: bool) -> list[Point]:
    """The configurations of complete trials; one point for each, over its seeds."""
    groups: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        if trial.done:
            groups[key(trial.params)].append(trial)
    sign = 1.0 if lower else -1.0
    return [
        Point(
            {name: value for name, value in group[0].params.items() if name != SEED},
            tuple(sign * float(trial.value or 0.0) for trial in group),
            tuple(trial.number for trial in group),
        )
        for group in groups.values()
    ]


def key(params: Mapping[str, Any]) -> str:
    """A configuration without its seed as one comparable text."""
    return repr(sorted((name, value) for name, value in params.items() if name != SEED))


def seed_noise(found: Sequence[Point]) -> float:
    """Pooled standard deviation over the seeds of one configuration; nan where none was run twice.

    The better half of the configurations counts, three at least: bad ones scatter more, and it is good ones that are
    told apart by it.
    """
    groups = [point.costs for point in sorted(found, key=lambda point: point.cost) if len(point.costs) > 1]
    groups = groups[: max(3, (len(groups) + 1) // 2)]
    free = sum(len(costs) - 1 for costs in groups)
    return math.sqrt(sum((len(costs) - 1) * stdev(costs) ** 2 for costs in groups) / free) if free else math.nan
