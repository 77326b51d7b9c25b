"""From a value to a place on the drawing."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tunelab.charts.ticks import Kind, rounded_out

LARGEST = 1e300  # sums and differences of larger numbers are infinite
SMALLEST = 1e-300  # smaller ones have lost their digits


@dataclass(frozen=True)
class Scale:
    """One axis: values from `low` to `high` lie from `start` to `end`, in units of the drawing."""

    kind: Kind
    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Where a value lies; beyond the ends it is moved to the nearer one."""
        inside = min(max(value, self.low), self.high)
        if self.kind == "log":
            low, high = math.log(self.low), math.log(self.high)  # of each alone: a quotient may be infinite
            share = (math.log(inside) - low) / (high - low)
        else:
            share = (inside - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def drawable(value: float, kind: Kind) -> bool:
    """Whether a value has a place: finite, and above 0 on a log axis."""
    return math.isfinite(value) and abs(value) <= LARGEST and (kind == "linear" or value > SMALLEST)


def fitted(values: Iterable[float], kind: Kind, start: float, end: float, *, most: int = 0) -> Scale:
    """The scale that holds all values that have a place.

    Args:
        values: What is to be drawn.
        kind: How the axis runs.
        start: Place of the smallest.
        end: Place of the largest.
        most: Where given, a linear range is widened to round numbers, no more than this many.
    """
    kept = [value for value in values if drawable(value, kind)]
    low, high = (min(kept), max(kept)) if kept else (1.0, 10.0) if kind == "log" else (0.0, 1.0)
    if kind == "log":
        low, high = (low, high) if high > low * (1 + 1e-9) else (low / 3, high * 3)
        return Scale(kind, low / 1.1, high * 1.1, start, end) if most else Scale(kind, low, high, start, end)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        room = abs(low) / 10 or 0.5
        low, high = low - room, high + room
    low, high = rounded_out(low, high, most) if most else (low, high)
    return Scale(kind, low, high, start, end)
