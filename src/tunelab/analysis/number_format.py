"""Numbers as text: 1,234, 12.5k, 3e-4, durations, sizes in bytes, and the labels of one axis."""

import itertools
import math
from collections.abc import Sequence

SUFFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
SUFFIX_FROM = 10_000.0  # from here on a unit stands for the zeros
EXPONENT_BELOW = 1e-3  # below, a power of ten stands for them
EXPONENT_FROM = 1e15  # beyond the last unit


def format_number(value: float, digits: int = 3) -> str:
    """A number with `digits` significant ones and no trailing zeros; whole numbers below 10,000 in full."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("infinite" if value > 0 else "-infinite")
    size = abs(value)
    if value == int(value) and size < SUFFIX_FROM:
        return f"{int(value):,}"
    if size >= EXPONENT_FROM or size < EXPONENT_BELOW:
        return format_scientific(value, digits)
    if size >= SUFFIX_FROM:
        unit, letter = next(pair for pair in SUFFIXES if size >= pair[0])
        text = strip_zeros(f"{value / unit:.{max(0, digits - 1 - int(math.log10(size / unit)))}f}")
        return f"{text}{letter}"
    return strip_zeros(f"{value:,.{max(0, digits - 1 - math.floor(math.log10(size)))}f}")


def format_scientific(value: float, digits: int = 3) -> str:
    """A number as a factor and a power of ten, such as 3e-4."""
    factor, power = f"{value:.{digits - 1}e}".split("e")
    return f"{strip_zeros(factor)}e{int(power)}" if value else "0"


def strip_zeros(text: str) -> str:
    """Without the zeros that end a decimal fraction."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def format_ticks(values: Sequence[float]) -> list[str]:
    """The numbers along one axis: the same unit and as many decimals as their distance requires."""
    largest = max(map(abs, values), default=0.0)
    steps = [right - left for left, right in itertools.pairwise(values)]
    if not steps or largest >= EXPONENT_FROM or largest < EXPONENT_BELOW:
        return [format_number(value) for value in values]
    if max(steps) > 1.5 * min(steps):  # a log axis: every number for itself
        return [format_number(value, 6) for value in values]
    unit, letter = next((pair for pair in SUFFIXES if largest >= max(pair[0], SUFFIX_FROM)), (1.0, ""))
    decimals = max(0, -math.floor(math.log10(min(steps) / unit) + 1e-9))
    return [f"{value / unit:,.{decimals}f}{letter}" if value else "0" for value in values]


def format_duration(seconds: float | None, digits: int = 3) -> str:
    """A duration in the unit that fits it, with `digits` significant ones; a dash where there is none."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    if seconds < 90:
        return f"{seconds:.{digits}g} s"
    if seconds < 5400:
        return f"{seconds / 60:.{digits}g} min"
    return f"{seconds / 3600:.{digits}g} h" if seconds < 172_800 else f"{seconds / 86_400:.{digits}g} days"


MEBIBYTE = 2**20
GIBIBYTE = 2**30


def format_bytes(size: int | float) -> str:
    """A size in MiB, from 8 GiB on in GiB."""
    return f"{size / MEBIBYTE:,.1f} MiB" if size < 8 * GIBIBYTE else f"{size / GIBIBYTE:,.1f} GiB"
