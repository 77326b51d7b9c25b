"""The area of a chart with two axes: grid, numbers, names, lines of reference."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from tunelab.charts.numbers import tick_texts
from tunelab.charts.scale import Scale, drawable, fitted
from tunelab.charts.series import Mark, Series
from tunelab.charts.shapes import EDGE, LINE, line, text
from tunelab.charts.style import WIDTH
from tunelab.charts.ticks import Kind, ticks
from tunelab.charts.words import cut, width

TALL = 230.0  # of the area itself
MOST_UP = 7  # numbers along the upright axis


@dataclass(frozen=True)
class Area:
    """Where the points go."""

    x: Scale
    y: Scale
    whole: bool  # halves make no sense along x

    @property
    def ticks_up(self) -> list[float]:
        """Numbers along the upright axis."""
        return ticks(self.y.low, self.y.high, MOST_UP, self.y.kind)

    @property
    def ticks_along(self) -> list[float]:
        """As many numbers along x as stand side by side without touching."""
        for most in range(9, 2, -1):
            found = ticks(self.x.low, self.x.high, most, self.x.kind, whole=self.whole)
            spots = [(self.x.place(value), width(words)) for value, words in zip(found, tick_texts(found), strict=True)]
            gaps = [b - a - (wide_a + wide_b) / 2 for (a, wide_a), (b, wide_b) in itertools.pairwise(spots)]
            if all(gap > 12 for gap in gaps):
                return found
        return ticks(self.x.low, self.x.high, 2, self.x.kind, whole=self.whole)


def area_of(series: Sequence[Series], marks: Sequence[Mark], x_kind: Kind, y_kind: Kind, top: float) -> Area:
    """The area that holds all points, bands and marks."""
    good = [
        (x, y)
        for one in series
        for x, y in [*zip(one.xs, one.ys, strict=True), *one.points]
        if drawable(x, x_kind) and drawable(y, y_kind)
    ]
    across = [x for x, _ in good] + [mark.value for mark in marks if mark.axis == "x"]
    up = [y for _, y in good] + [mark.value for mark in marks if mark.axis == "y"]
    up += [value for one in series for value in [*one.low, *one.high]] if good else []
    y = fitted(up, y_kind, top + TALL, top, most=MOST_UP)
    words = tick_texts(ticks(y.low, y.high, MOST_UP, y_kind))
    left = EDGE + max(map(width, words), default=20.0) + 8
    whole = bool(across) and all(value == int(value) for value in across if drawable(value, x_kind))
    return Area(fitted(across, x_kind, left + 8, WIDTH - EDGE - 10), y, whole)


def axes(area: Area, x_label: str) -> tuple[list[str], float]:
    """Grid, numbers and the name of the level axis; where the next line may stand."""
    left, right, bottom = area.x.start - 8, area.x.end + 8, area.y.start
    drawn = []
    up, along = area.ticks_up, area.ticks_along
    for value, words in zip(up, tick_texts(up), strict=True):
        y = area.y.place(value)
        drawn += [line(left, y, right, y, "grid"), text(left - 6, y + 4.5, words, "soft", "end")]
    for value, words in zip(along, tick_texts(along), strict=True):
        x = area.x.place(value)
        half = width(words) / 2
        drawn += [line(x, bottom, x, bottom + 4, "axis")]
        drawn += [text(min(max(x, EDGE + half), WIDTH - EDGE / 2 - half), bottom + LINE, words, "soft", "middle")]
    drawn += [line(left, bottom, right, bottom, "axis")]
    if area.x.kind == "linear" and area.y.kind == "linear" and area.y.low < 0 < area.y.high:
        drawn += [line(left, area.y.place(0), right, area.y.place(0), "axis")]
    kinds = [words for words, kind in (("x", area.x.kind), ("y", area.y.kind)) if kind == "log"]
    logs = f" ({' and '.join(kinds)}: log scale)" if kinds else ""
    drawn.append(
        text((left + right) / 2, bottom + 2 * LINE + 2, cut(x_label + logs, WIDTH - 2 * EDGE), "soft", "middle")
    )
    return drawn, bottom + 2 * LINE + 6


def reference(area: Area, marks: Sequence[Mark]) -> list[str]:
    """Lines of reference with their words, which step down where they would cover each other."""
    drawn: list[str] = []
    taken: list[tuple[float, float, float]] = []  # from, to, foot
    for mark in marks:
        scale = area.x if mark.axis == "x" else area.y
        if not drawable(mark.value, scale.kind):
            continue
        spot, wide = scale.place(mark.value), width(mark.words)
        if mark.axis == "x":
            ahead = spot + 6 + wide <= area.x.end + 8
            start, foot = (spot + 5 if ahead else spot - 5 - wide), area.y.end + 14
            drawn.append(line(spot, area.y.start, spot, area.y.end, "mark", "3 3"))
        else:
            ahead, start, foot = False, area.x.end - wide, spot - 5
            drawn.append(line(area.x.start - 8, spot, area.x.end + 8, spot, "mark", "3 3"))
            foot = foot if foot > area.y.end + 12 else spot + 16
        while any(start < right and left < start + wide and abs(foot - at) < LINE for left, right, at in taken):
            foot += LINE
        taken.append((start, start + wide, foot))
        drawn.append(text(start if ahead else start + wide, foot, mark.words, "soft halo", "start" if ahead else "end"))
    return drawn
