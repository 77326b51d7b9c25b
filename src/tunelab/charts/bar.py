"""Bars side by side, with the spread of each; level ones where names are long."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunelab.charts.numbers import human, tick_texts
from tunelab.charts.scale import Scale, drawable, fitted
from tunelab.charts.shapes import EDGE, LINE, framed, heading, legend, line, notes, number, text
from tunelab.charts.style import WIDTH, colour
from tunelab.charts.ticks import ticks
from tunelab.charts.words import cut, safe, width

TALL = 230.0
LABELS = 200.0  # most room for names beside level bars


@dataclass(frozen=True)
class Bars:
    """One bar of every group.

    Attributes:
        name: What the legend calls it.
        values: One per group; what is no finite number is left out and told.
        low: Lower end of the spread; empty or as many as `values`.
        high: Upper end.
    """

    name: str
    values: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or len(self.low) not in (0, len(self.values)):
            raise ValueError(f"the spread of bars {self.name!r} does not match their {len(self.values)} values")


def bar_chart(
    groups: Sequence[str], bars: Sequence[Bars], *, title: str, value_label: str, level: bool | None = None
) -> str:
    """One SVG with a group of bars per name, from 0, each with its number and the spread where it is given.

    Args:
        groups: Names of the groups.
        bars: What each group holds.
        title: Above all.
        value_label: What the values are.
        level: Bars lie; as their names' length asks for when left out.
    """
    for one in bars:
        if len(one.values) != len(groups):
            raise ValueError(f"bars {one.name!r} have {len(one.values)} values for {len(groups)} groups")
    room = (WIDTH - 2 * EDGE - 40) / max(1, len(groups))
    lying = any(width(name) > room - 6 for name in groups) if level is None else level
    named, foot = heading(title, "" if lying else value_label)
    keys, foot = legend([one.name for one in bars], foot, "bar")
    ends = [value for one in bars for value in [*one.values, *one.low, *one.high] if drawable(value, "linear")]
    body, foot = (lying_bars if lying else standing_bars)(groups, bars, [0.0, *ends], foot + 10, value_label)
    odd = [
        f"{group}, {one.name}: {human(value)}"
        for one in bars
        for group, value in zip(groups, one.values, strict=True)
        if not drawable(value, "linear")
    ]
    told, foot = notes([f"Not drawn: {'; '.join(odd)}."] * bool(odd) + ["no values"] * (not ends), foot)
    return framed([*named, *keys, *body, *told], foot, title, f"{value_label} of {', '.join(groups)}")


def standing_bars(
    groups: Sequence[str], bars: Sequence[Bars], ends: Sequence[float], top: float, label: str
) -> tuple[list[str], float]:
    """Bars that grow upwards, names below."""
    scale = fitted(ends, "linear", top + TALL, top, most=7)
    marks = ticks(scale.low, scale.high, 7)
    left = EDGE + max(map(width, tick_texts(marks))) + 8
    drawn = []
    for value, words in zip(marks, tick_texts(marks), strict=True):
        y = scale.place(value)
        drawn += [line(left, y, WIDTH - EDGE, y, "axis" if value == 0 else "grid")]
        drawn += [text(left - 6, y + 4.5, words, "soft", "end")]
    room = (WIDTH - EDGE - left) / max(1, len(groups))
    thick = min(48.0, room * 0.76 / max(1, len(bars)))
    for at, name in enumerate(groups):
        middle = left + room * (at + 0.5)
        drawn.append(text(middle, top + TALL + LINE, cut(name, room - 2), "ink", "middle"))
        for place, one in enumerate(bars):
            start = middle + thick * (place - len(bars) / 2)
            drawn += one_bar(one, place, at, name, scale, (start + 1, thick - 2), lying=False)
    return drawn, top + TALL + LINE + 4


def lying_bars(
    groups: Sequence[str], bars: Sequence[Bars], ends: Sequence[float], top: float, label: str
) -> tuple[list[str], float]:
    """Bars that grow to the right, names beside them and each value behind its bar."""
    longest = max(map(width, groups), default=0.0)
    above = longest > LABELS  # names too long to stand beside their bars stand over them
    left = EDGE + (0.0 if above else longest + 8)
    numbers = max((width(human(value)) for one in bars for value in one.values), default=0.0) + 10
    scale = fitted(ends, "linear", left, WIDTH - EDGE - numbers, most=5)
    thick, gap = (18.0 if len(bars) < 3 else 15.0), (10.0 + LINE if above else 10.0)
    each = thick * len(bars) + gap
    bottom = top + len(groups) * each
    drawn = []
    marks = ticks(scale.low, scale.high, 5)
    for value, words in zip(marks, tick_texts(marks), strict=True):
        x = scale.place(value)
        drawn += [line(x, top, x, bottom, "axis" if value == 0 else "grid")]
        drawn += [text(x, bottom + LINE - 2, words, "soft", "middle")]
    for at, name in enumerate(groups):
        y = top + at * each + gap - 5
        if above:
            drawn.append(text(left, y - 5, cut(name, WIDTH - 2 * EDGE), "ink halo"))
        else:
            drawn.append(text(left - 8, y + thick * len(bars) / 2 + 4.5, name, "ink", "end"))
        for place, one in enumerate(bars):
            drawn += one_bar(one, place, at, name, scale, (y + place * thick + 1, thick - 2), lying=True)
    drawn.append(text((left + WIDTH - EDGE) / 2, bottom + 2 * LINE, cut(label, WIDTH - 2 * EDGE), "soft", "middle"))
    return drawn, bottom + 2 * LINE + 4


def one_bar(
    bars: Bars, place: int, at: int, name: str, scale: Scale, across: tuple[float, float], *, lying: bool
) -> Iterator[str]:
    """A bar with its spread, and its number where it lies."""
    value = bars.values[at]
    if not drawable(value, "linear"):
        return
    (start, thick), zero, end = across, scale.place(0), scale.place(value)
    low, size = min(zero, end), abs(end - zero)
    box = (low, start, size, thick) if lying else (start, low, thick, size)
    said = f"{name}, {bars.name}: {human(value, 4)}".replace(", :", ":")
    ends = (scale.place(bars.low[at]), scale.place(bars.high[at])) if spread_known(bars, at) else ()
    said += f" ({human(bars.low[at])} to {human(bars.high[at])})" if ends else ""
    x, y, wide, high = map(number, box)
    yield (
        f'<rect class="{colour(place)}" x="{x}" y="{y}" width="{wide}" height="{high}" fill="currentColor"'
        f' fill-opacity=".85"><title>{safe(said)}</title></rect>'
    )
    middle = start + thick / 2
    if ends:
        a, b = ends
        whisker = (a, middle, b, middle) if lying else (middle, a, middle, b)
        caps = [(e, middle - 4, e, middle + 4) if lying else (middle - 4, e, middle + 4, e) for e in ends]
        yield from (line(*corner, "whisker") for corner in (whisker, *caps))
    if lying:
        yield text(max(end, zero, *ends) + 5, middle + 4.5, human(value), "soft")
    elif width(human(value)) < thick + 8:
        yield text(middle, min(end, zero, *ends) - 5, human(value), "soft halo", "middle")


def spread_known(bars: Bars, at: int) -> bool:
    """Whether both ends of a bar's spread are finite."""
    return bool(bars.low) and math.isfinite(bars.low[at]) and math.isfinite(bars.high[at])
