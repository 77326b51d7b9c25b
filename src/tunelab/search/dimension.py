"""One hyper-parameter of a search: the values it may take, and how each is written on a command line."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Scalar = str | int | float | bool | None  # what a study stores
LOG_RATIO = 100  # a positive range of two decades or more is searched by its logarithm


class Suggests(Protocol):
    """The part of an Optuna trial that a dimension asks."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number of a range."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number of a range."""

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """One of several values."""


@dataclass(frozen=True)
class Choice:
    """One of several values.

    Attributes:
        values: As a study stores them; a list or a mapping is stored as its text.
        texts: The same as they stand behind `key=` on a command line.
    """

    values: tuple[Scalar, ...]
    texts: tuple[str, ...]

    def suggest(self, trial: Suggests, key: str) -> Scalar:
        """The value that the trial proposes."""
        return trial.suggest_categorical(key, self.values)

    def text(self, value: Scalar) -> str:
        """A value as it stands behind `key=`."""
        return self.texts[self.place(value)]

    def place(self, value: Scalar) -> int:
        """The index of a value; 1, 1.0 and true are three values.

        Raises:
            ValueError: If it is none of this choice.
        """
        for index, known in enumerate(self.values):
            if type(known) is type(value) and known == value:
                return index
        return self.values.index(value)

    def holds(self, value: Scalar) -> bool:
        """Whether a study may store this value here."""
        return value in self.values

    def points(self) -> tuple[Scalar, ...]:
        """Every value, for a grid."""
        return self.values

    def told(self) -> str:
        """The dimension in words."""
        return "one of " + ", ".join(self.texts)


@dataclass(frozen=True)
class Span:
    """A range of numbers, both ends included.

    Attributes:
        low: Smallest value.
        high: Largest value.
        integer: Whether only whole numbers are proposed.
        log: Whether the logarithm is searched evenly rather than the value.
    """

    low: float
    high: float
    integer: bool = False
    log: bool = False

    def suggest(self, trial: Suggests, key: str) -> Scalar:
        """The value that the trial proposes."""
        if self.integer:
            return trial.suggest_int(key, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(key, self.low, self.high, log=self.log)

    def text(self, value: Scalar) -> str:
        """A value as it stands behind `key=`."""
        return repr(value)

    def holds(self, value: Scalar) -> bool:
        """Whether a study may store this value here."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and (not self.integer or float(value).is_integer())

    def points(self) -> tuple[Scalar, ...] | None:
        """Every value of a range of whole numbers; None where there is no end of them."""
        return tuple(range(int(self.low), int(self.high) + 1)) if self.integer else None

    def told(self) -> str:
        """The dimension in words."""
        kind = "whole numbers " if self.integer else ""
        return f"{kind}{self.low:g} to {self.high:g}{', by its logarithm' if self.log else ''}"


Dimension = Choice | Span


def span(low: float, high: float, *, integer: bool = False, log: bool | None = None) -> Span:
    """A range; its scale follows from its size unless it is set.

    Raises:
        ValueError: If the range is empty, or a logarithm is asked of what has none.
    """
    if not low < high:
        raise ValueError(f"{low:g} to {high:g} is no range; give the smaller number first")
    if log and low <= 0:
        raise ValueError(f"the logarithm of {low:g} does not exist; start above 0, or leave the scale out")
    wide = low > 0 and high / low >= LOG_RATIO * (1 - 1e-12)  # 1e-3 / 1e-5 is 99.99999999999999
    return Span(low, high, integer, wide if log is None else log)
