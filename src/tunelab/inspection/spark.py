"""A curve in one line of text.  Pure."""

import math
from collections.abc import Sequence

LEVELS = "▁▂▃▄▅▆▇█"


def spark(values: Sequence[float], columns: int = 60, *, log: bool = False) -> str:
    """Values as blocks of eight heights, from the smallest to the largest of them.

    Args:
        values: From left to right; what has no place (not finite; 0 or less with `log`) leaves a gap.
        columns: Most blocks; of more values, evenly spaced ones are shown, the first and the last among them.
        log: Whether heights follow the logarithm.
    """
    if len(values) > columns:
        values = [values[round(place * (len(values) - 1) / (columns - 1))] for place in range(columns)]
    heights = [height(value, log=log) for value in values]
    known = [value for value in heights if math.isfinite(value)]
    if not known:
        return " " * len(heights)
    low, span = min(known), max(known) - min(known)
    steps = len(LEVELS) - 1
    return "".join(
        LEVELS[round((value - low) / span * steps) if span else steps // 2] if math.isfinite(value) else " "
        for value in heights
    )


def height(value: float, *, log: bool) -> float:
    """Where a value stands; nan where it has no place."""
    if not math.isfinite(value) or (log and value <= 0):
        return math.nan
    return math.log(value) if log else value
