"""A setting of a search as an axis: where a value stands between the ends.  Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDE = 8.0  # positive numbers whose ends are this far apart are looked at by their logarithm
ABSENT = "(absent)"  # a setting that a configuration does not have


@dataclass(frozen=True)
class Setting:
    """What varies.

    Attributes:
        name: As on a command line.
        low: Smallest number; nan of values that are no numbers.
        high: Largest number.
        log: Whether the logarithm is the axis.
        integer: Whether only whole numbers make sense.
        values: Single values that were listed, in their order; empty of a range.
        texts: How each value stands on a command line; as many as `values`.
        declared: Whether the ends were asked for, rather than seen in what was tried.
    """

    name: str
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    integer: bool = False
    values: tuple[Any, ...] = ()
    texts: tuple[str, ...] = ()
    declared: bool = True

    @property
    def numeric(self) -> bool:
        """Whether its values have an order."""
        return not math.isnan(self.low)

    @property
    def range(self) -> bool:
        """Whether any number between the ends may be tried."""
        return not self.values

    def unit(self, value: float) -> float:
        """Where a number stands: 0 at the lower end, 1 at the upper."""
        if self.high <= self.low:
            return 0.5
        low, high, here = map(math.log, (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return (here - low) / (high - low)

    def at(self, unit: float) -> float:
        """The number that stands there; the other way round of `unit`."""
        if self.log:
            return math.exp(math.log(self.low) + unit * (math.log(self.high) - math.log(self.low)))
        return self.low + unit * (self.high - self.low)


def is_number(value: Any) -> bool:
    """Whether a value has a place on an axis."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def setting_of_values(name: str, values: Iterable[Any], texts: Sequence[str] = (), *, declared: bool = True) -> Setting:
    """The axis of listed values; numbers are put in order."""
    given = list(values)
    words = list(texts) or [told(value) for value in given]
    pairs: dict[str, tuple[Any, str]] = {repr(value): (value, text) for value, text in zip(given, words, strict=True)}
    if not pairs or not all(is_number(value) for value, _ in pairs.values()):
        kept = list(pairs.values())
        return Setting(name, values=tuple(v for v, _ in kept), texts=tuple(t for _, t in kept), declared=declared)
    kept = sorted(pairs.values(), key=lambda pair: float(pair[0]))
    low, high = float(kept[0][0]), float(kept[-1][0])
    return Setting(
        name,
        low,
        high,
        log=low > 0 and high / low >= WIDE,
        integer=all(float(value).is_integer() and isinstance(value, int) for value, _ in kept),
        values=tuple(value for value, _ in kept),
        texts=tuple(text for _, text in kept),
        declared=declared,
    )


def setting_of_seen(name: str, tried: Sequence[Any]) -> Setting:
    """The axis of values that were tried, where nothing tells what was asked for."""
    found = setting_of_values(name, tried, declared=False)
    if not found.numeric or len(found.values) <= 10:
        return found
    return Setting(name, found.low, found.high, found.log, found.integer, declared=False)


def setting_of_words(name: str, block: Mapping[str, Any]) -> Setting:
    """The axis of a dimension as `search.json` describes it.

    Raises:
        KeyError: If it describes none.
    """
    if "values" in block:
        return setting_of_values(name, block["values"], list(map(str, block["texts"])))
    return Setting(name, float(block["low"]), float(block["high"]), bool(block["log"]), bool(block["integer"]))


def told(value: Any) -> str:
    """A value as a reader writes it."""
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)
