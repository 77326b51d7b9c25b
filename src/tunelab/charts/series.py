"""What a chart draws: named points, the spread around them, and lines of reference."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tunelab.charts.numbers import human
from tunelab.charts.scale import drawable
from tunelab.charts.ticks import Kind


@dataclass(frozen=True)
class Series:
    """One line of a chart, or one cloud of points.

    Attributes:
        name: What the legend calls it.
        xs: Where its points stand, from left to right for a line.
        ys: Their values, as many as `xs`; what is no finite number leaves a gap.
        low: Lower edge of the band around the line, such as mean minus spread; empty or as many as `xs`.
        high: Upper edge.
        points: Single values beside the line, such as one of each seed: (x, y).
        names: What each point is called under the pointer; empty or as many as `xs`.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    points: Sequence[tuple[float, float]] = ()
    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        if len(self.xs) != len(self.ys):
            raise ValueError(f"series {self.name!r} has {len(self.xs)} places and {len(self.ys)} values")
        if len(self.low) != len(self.high) or len(self.low) not in (0, len(self.xs)):
            raise ValueError(f"the band of series {self.name!r} does not match its {len(self.xs)} points")
        if len(self.names) not in (0, len(self.xs)):
            raise ValueError(f"series {self.name!r} has {len(self.names)} names for {len(self.xs)} points")

    def said(self, place: int) -> str:
        """What the pointer tells over a point."""
        band = f" ({human(self.low[place])} to {human(self.high[place])})" if self.low else ""
        of = self.names[place] if self.names else self.name
        return f"{of}: {human(self.xs[place], 5)}, {human(self.ys[place], 4)}{band}".removeprefix(": ")


@dataclass(frozen=True)
class Mark:
    """A line of reference across the chart: at `value` of the axis `axis`, with a few words."""

    value: float
    words: str
    axis: Literal["x", "y"] = "x"


def pieces(series: Series, x_kind: Kind, y_kind: Kind) -> Iterator[list[int]]:
    """Places of points that one unbroken line goes through."""
    piece: list[int] = []
    for place, (x, y) in enumerate(zip(series.xs, series.ys, strict=True)):
        if drawable(x, x_kind) and drawable(y, y_kind):
            piece.append(place)
        elif piece:
            yield piece
            piece = []
    if piece:
        yield piece


def left_out(series: Sequence[Series], x_kind: Kind, y_kind: Kind) -> list[str]:
    """What cannot be drawn, as sentences."""
    pairs = [pair for one in series for pair in [*zip(one.xs, one.ys, strict=True), *one.points]]
    odd = sum(not (drawable(x, "linear") and drawable(y, "linear")) for x, y in pairs)
    below = sum(
        (x_kind == "log" and math.isfinite(x) and x <= 0) or (y_kind == "log" and math.isfinite(y) and y <= 0)
        for x, y in pairs
        if drawable(x, "linear") and drawable(y, "linear")
    )
    low = y_kind == "log" and any(drawable(value, "linear") and value <= 0 for one in series for value in one.low)
    said = [f"Not drawn: {counted(odd, 'value')} not finite."] * bool(odd)
    said += [f"Not drawn: {counted(below, 'point')} at or below 0, which a log scale has no place for."] * bool(below)
    said += ["The band goes down to 0 or below, where the log scale cuts it off."] * low
    return said


def counted(number: int, of: str) -> str:
    """`1 point` or `2 points`, with what they are."""
    return f"{number} {of} that is" if number == 1 else f"{number:,} {of}s that are"
