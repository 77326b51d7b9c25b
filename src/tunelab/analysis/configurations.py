"""Trials, configurations (trials grouped over their seeds), and the settings that vary, as axes.  Pure."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
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
        """Whether the trial has a score."""
        return self.state == "complete" and self.value is not None and math.isfinite(self.value)


@dataclass(frozen=True)
class Configuration:
    """One setting of all hyper-parameters, with its trials over seeds.

    Attributes:
        params: Its settings, without the seed.
        costs: One for each seed; lower is better, whichever way the score goes.
        trial_numbers: Of its trials.
    """

    params: Mapping[str, Any]
    costs: tuple[float, ...]
    trial_numbers: tuple[int, ...]

    @property
    def cost(self) -> float:
        """The mean over the seeds."""
        return fmean(self.costs)


def group_by_configuration(trials: Sequence[Trial], *, lower: bool) -> list[Configuration]:
    """The configurations of complete trials, each with its scores over seeds."""
    groups: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        if trial.done:
            groups[configuration_key(trial.params)].append(trial)
    sign = 1.0 if lower else -1.0
    return [
        Configuration(
            {name: value for name, value in group[0].params.items() if name != SEED},
            tuple(sign * float(trial.value or 0.0) for trial in group),
            tuple(trial.number for trial in group),
        )
        for group in groups.values()
    ]


def configuration_key(params: Mapping[str, Any]) -> str:
    """A configuration without its seed as one comparable text."""
    return repr(sorted((name, value) for name, value in params.items() if name != SEED))


def seed_noise(configurations: Sequence[Configuration]) -> float:
    """Pooled standard deviation over the seeds of one configuration; nan where none was run twice.

    The better half of the configurations counts, three at least: bad ones scatter more, and it is good ones that are
    told apart by it.
    """
    groups = [point.costs for point in sorted(configurations, key=lambda point: point.cost) if len(point.costs) > 1]
    groups = groups[: max(3, (len(groups) + 1) // 2)]
    free = sum(len(costs) - 1 for costs in groups)
    return math.sqrt(sum((len(costs) - 1) * stdev(costs) ** 2 for costs in groups) / free) if free else math.nan


LOG_AXIS_FROM_RATIO = 8.0  # positive numbers whose ends are this far apart are looked at by their logarithm
ABSENT = "(absent)"  # a setting that a configuration does not have


@dataclass(frozen=True)
class Setting:
    """A hyper-parameter that varies, as an axis.

    Attributes:
        name: As on a command line.
        low: Smallest number; nan of values that are no numbers.
        high: Largest number.
        log: Whether the logarithm is the axis.
        integer: Whether only whole numbers make sense.
        values: Single values that were listed, in their order; empty of a range.
        override_texts: How each value stands on a command line; as many as `values`.
        from_search_space: Whether the ends are those of the search space, not of the values that were tried.
    """

    name: str
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    integer: bool = False
    values: tuple[Any, ...] = ()
    override_texts: tuple[str, ...] = ()
    from_search_space: bool = True

    @property
    def numeric(self) -> bool:
        """Whether its values have an order."""
        return not math.isnan(self.low)

    @property
    def is_range(self) -> bool:
        """Whether any number between the ends may be tried."""
        return not self.values

    def to_unit(self, value: float) -> float:
        """The position of a number on the axis: 0 at the lower end, 1 at the upper."""
        if self.high <= self.low:
            return 0.5
        low, high, here = map(math.log, (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return (here - low) / (high - low)

    def from_unit(self, unit: float) -> float:
        """The number at a position of the axis; the inverse of `to_unit`."""
        if self.log:
            return math.exp(math.log(self.low) + unit * (math.log(self.high) - math.log(self.low)))
        return self.low + unit * (self.high - self.low)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def setting_from_values(
    name: str, values: Iterable[Any], texts: Sequence[str] = (), *, declared: bool = True
) -> Setting:
    """The axis of listed values; numbers are put in order."""
    tried = list(values)
    words = list(texts) or [format_value(value) for value in tried]
    pairs: dict[str, tuple[Any, str]] = {repr(value): (value, text) for value, text in zip(tried, words, strict=True)}
    if not pairs or not all(is_number(value) for value, _ in pairs.values()):
        kept = list(pairs.values())
        return Setting(
            name, values=tuple(v for v, _ in kept), override_texts=tuple(t for _, t in kept), from_search_space=declared
        )
    kept = sorted(pairs.values(), key=lambda pair: float(pair[0]))
    low, high = float(kept[0][0]), float(kept[-1][0])
    return Setting(
        name,
        low,
        high,
        log=low > 0 and high / low >= LOG_AXIS_FROM_RATIO,
        integer=all(float(value).is_integer() and isinstance(value, int) for value, _ in kept),
        values=tuple(value for value, _ in kept),
        override_texts=tuple(text for _, text in kept),
        from_search_space=declared,
    )


def setting_from_trials(name: str, tried: Sequence[Any]) -> Setting:
    """The axis of the values that were tried, for a study without a search space."""
    setting = setting_from_values(name, tried, declared=False)
    if not setting.numeric or len(setting.values) <= 10:
        return setting
    return Setting(name, setting.low, setting.high, setting.log, setting.integer, from_search_space=False)


def setting_from_search_json(name: str, block: Mapping[str, Any]) -> Setting:
    """The axis of a dimension as `search.json` describes it.

    Raises:
        KeyError: If it describes none.
    """
    if "values" in block:
        return setting_from_values(name, block["values"], list(map(str, block["texts"])))
    return Setting(name, float(block["low"]), float(block["high"]), bool(block["log"]), bool(block["integer"]))


def format_value(value: Any) -> str:
    """A value of a setting as text."""
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)
