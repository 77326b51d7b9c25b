"""Where the lines of an axis stand: steps of 1, 2 or 5 times a power of ten; decades on a log axis."""

import math
from typing import Literal

Kind = Literal["linear", "log"]
FACTORS = (1, 2, 5)


def ticks(low: float, high: float, most: int, kind: Kind = "linear", *, whole: bool = False) -> list[float]:
    """As many round numbers from `low` to `high` as do not exceed `most`, which is 2 or more.

    Args:
        low: Smallest value of the axis; above 0 for a log axis.
        high: Largest; above `low`.
        most: Largest count.
        kind: How the axis runs.
        whole: Halves make no sense, as for layers and steps.
    """
    if kind == "log":
        found = next((found for found in decades(low, high) if 2 <= len(found) <= most), [])
        if found:
            return found
    return even(low, high, most, whole=whole)


def even(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Multiples of the smallest round step that gives no more than `most` of them."""
    finest = max(abs(low), abs(high), 1e-290) * 1e-14  # floats tell no smaller steps apart
    power = math.floor(math.log10(max((high - low) / max(most, 1), finest))) - 1
    power = max(power, 0) if whole else power
    while True:
        for factor in FACTORS:
            found = multiples(low, high, factor, power)
            if len(found) <= most:
                return found
        power += 1


def multiples(low: float, high: float, factor: int, power: int) -> list[float]:
    """Multiples of factor * 10^power within the range, each the float nearest to its decimal number."""
    step = float(f"{factor}e{power}")
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{number * factor}e{power}") for number in range(first, last + 1)]


def decades(low: float, high: float) -> list[list[float]]:
    """Ticks of a log axis, from dense to sparse."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    powers = range(first, last + 1)
    dense = [float(f"{factor}e{power}") for power in powers for factor in FACTORS]
    choices = [dense, *([float(f"1e{power}") for power in powers if power % every == 0] for every in range(1, 100))]
    return [[value for value in choice if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)] for choice in choices]


def rounded_out(low: float, high: float, most: int) -> tuple[float, float]:
    """The range widened to the next ticks of a linear axis."""
    found = even(low, high, most)
    if len(found) < 2:
        return low, high
    step = found[1] - found[0]
    return (
        found[0] if found[0] <= low else found[0] - step,
        found[-1] if found[-1] >= high else found[-1] + step,
    )
