"""Axes and the data drawn over them: ticks, linear and log scales, series, reference lines, the plot area."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tunelab.analysis.number_format import format_number, format_ticks
from tunelab.language.translation import translate
from tunelab.report.charts.svg import (
    CHART_WIDTH,
    LINE_HEIGHT,
    MARGIN,
    line_element,
    text_element,
    text_width,
    truncate_text,
)

ScaleKind = Literal["linear", "log"]
TICK_FACTORS = (1, 2, 5)


def axis_ticks(
    low: float, high: float, max_ticks: int, kind: ScaleKind = "linear", *, integers_only: bool = False
) -> list[float]:
    """Round numbers from `low` to `high`, at most `max_ticks`, which is 2 or more.

    Args:
        low: Smallest value of the axis; above 0 for a log axis.
        high: Largest; above `low`.
        max_ticks: Largest count.
        kind: How the axis runs.
        integers_only: Halves make no sense, as for layers and steps.
    """
    if kind == "log":
        ticks = next((ticks for ticks in log_ticks(low, high) if 2 <= len(ticks) <= max_ticks), [])
        if ticks:
            return ticks
    return linear_ticks(low, high, max_ticks, integers_only=integers_only)


def linear_ticks(low: float, high: float, max_ticks: int, *, integers_only: bool = False) -> list[float]:
    """Multiples of the smallest round step that gives at most `max_ticks` of them."""
    finest = max(abs(low), abs(high), 1e-290) * 1e-14  # floats tell no smaller steps apart
    power = math.floor(math.log10(max((high - low) / max(max_ticks, 1), finest))) - 1
    power = max(power, 0) if integers_only else power
    while True:
        for factor in TICK_FACTORS:
            ticks = step_multiples(low, high, factor, power)
            if len(ticks) <= max_ticks:
                return ticks
        power += 1


def step_multiples(low: float, high: float, factor: int, power: int) -> list[float]:
    """Multiples of factor * 10^power within the range, each the float nearest to its decimal number."""
    step = float(f"{factor}e{power}")
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{number * factor}e{power}") for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[list[float]]:
    """Ticks of a log axis, from dense to sparse."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    powers = range(first, last + 1)
    dense = [float(f"{factor}e{power}") for power in powers for factor in TICK_FACTORS]
    choices = [dense, *([float(f"1e{power}") for power in powers if power % every == 0] for every in range(1, 100))]
    return [[value for value in choice if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)] for choice in choices]


def round_range(low: float, high: float, max_ticks: int) -> tuple[float, float]:
    """The range widened to the next ticks of a linear axis."""
    ticks = linear_ticks(low, high, max_ticks)
    if len(ticks) < 2:
        return low, high
    step = ticks[1] - ticks[0]
    return (
        ticks[0] if ticks[0] <= low else ticks[0] - step,
        ticks[-1] if ticks[-1] >= high else ticks[-1] + step,
    )


MAX_DRAWABLE = 1e300  # sums and differences of larger numbers are infinite
MIN_LOG_VALUE = 1e-300  # smaller ones have lost their digits


@dataclass(frozen=True)
class Scale:
    """One axis: values from `low` to `high` lie from `start` to `end`, in units of the drawing."""

    kind: ScaleKind
    low: float
    high: float
    start: float
    end: float

    def position(self, value: float) -> float:
        """The coordinate of a value; beyond the ends, that of the nearer one."""
        inside = min(max(value, self.low), self.high)
        if self.kind == "log":
            low, high = math.log(self.low), math.log(self.high)  # of each alone: a quotient may be infinite
            share = (math.log(inside) - low) / (high - low)
        else:
            share = (inside - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def is_drawable(value: float, kind: ScaleKind) -> bool:
    """Whether a value has a position: finite, and above 0 on a log axis."""
    return math.isfinite(value) and abs(value) <= MAX_DRAWABLE and (kind == "linear" or value > MIN_LOG_VALUE)


def fit_scale(values: Iterable[float], kind: ScaleKind, start: float, end: float, *, max_ticks: int = 0) -> Scale:
    """The scale that holds all drawable values.

    Args:
        values: What is to be drawn.
        kind: How the axis runs.
        start: Place of the smallest.
        end: Place of the largest.
        max_ticks: Where given, a linear range is widened to round numbers, no more than this many.
    """
    kept = [value for value in values if is_drawable(value, kind)]
    low, high = (min(kept), max(kept)) if kept else (1.0, 10.0) if kind == "log" else (0.0, 1.0)
    if kind == "log":
        low, high = (low, high) if high > low * (1 + 1e-9) else (low / 3, high * 3)
        return Scale(kind, low / 1.1, high * 1.1, start, end) if max_ticks else Scale(kind, low, high, start, end)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        room = abs(low) / 10 or 0.5
        low, high = low - room, high + room
    low, high = round_range(low, high, max_ticks) if max_ticks else (low, high)
    return Scale(kind, low, high, start, end)


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
        tooltip_names: What each point is called under the pointer; empty or as many as `xs`.
        point_names: What each of `points` is called under the pointer; empty or as many as they.
        best: Which of `points` is ringed; -1 for none.
        missing: Where on the x axis a cross stands for a value that there is none of, such as a failed trial.
        missing_on_top: Whether these crosses stand at the upper end, as where lower is better.
        marked: Whether its points have markers; a line of reference has none.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    points: Sequence[tuple[float, float]] = ()
    tooltip_names: Sequence[str] = ()
    point_names: Sequence[str] = ()
    best: int = field(default=-1, kw_only=True)
    missing: Sequence[float] = ()
    missing_on_top: bool = field(default=False, kw_only=True)
    marked: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        if len(self.xs) != len(self.ys):
            raise ValueError(f"series {self.name!r} has {len(self.xs)} places and {len(self.ys)} values")
        if len(self.low) != len(self.high) or len(self.low) not in (0, len(self.xs)):
            raise ValueError(f"the band of series {self.name!r} does not match its {len(self.xs)} points")
        if len(self.tooltip_names) not in (0, len(self.xs)):
            raise ValueError(f"series {self.name!r} has {len(self.tooltip_names)} names for {len(self.xs)} points")

    def tooltip(self, place: int) -> str:
        """The tooltip of a point."""
        band = (
            translate(" ({low} to {high})", low=format_number(self.low[place]), high=format_number(self.high[place]))
            if self.low
            else ""
        )
        name = self.tooltip_names[place] if self.tooltip_names else self.name
        return f"{name}: {format_number(self.xs[place], 5)}, {format_number(self.ys[place], 4)}{band}".removeprefix(
            ": "
        )


@dataclass(frozen=True)
class ReferenceLine:
    """A line of reference across the chart: at `value` of the axis `axis`, with a few words."""

    value: float
    label: str
    axis: Literal["x", "y"] = "x"


def unbroken_pieces(series: Series, x_kind: ScaleKind, y_kind: ScaleKind) -> Iterator[list[int]]:
    """Indices of points in runs that one unbroken line connects."""
    piece: list[int] = []
    for place, (x, y) in enumerate(zip(series.xs, series.ys, strict=True)):
        if is_drawable(x, x_kind) and is_drawable(y, y_kind):
            piece.append(place)
        elif piece:
            yield piece
            piece = []
    if piece:
        yield piece


def omission_notes(series: Sequence[Series], x_kind: ScaleKind, y_kind: ScaleKind) -> list[str]:
    """Sentences on the values that cannot be drawn."""
    pairs = [pair for one in series for pair in [*zip(one.xs, one.ys, strict=True), *one.points]]
    odd = sum(not (is_drawable(x, "linear") and is_drawable(y, "linear")) for x, y in pairs)
    below = sum(
        (x_kind == "log" and math.isfinite(x) and x <= 0) or (y_kind == "log" and math.isfinite(y) and y <= 0)
        for x, y in pairs
        if is_drawable(x, "linear") and is_drawable(y, "linear")
    )
    low = y_kind == "log" and any(is_drawable(value, "linear") and value <= 0 for one in series for value in one.low)
    notes = [translate("Not drawn: {values} not finite.", values=count_phrase(odd, "value"))] * bool(odd)
    points = count_phrase(below, "point")
    notes += [
        translate("Not drawn: {points} at or below 0, which a log scale has no place for.", points=points)
    ] * bool(below)
    notes += [translate("The band goes down to 0 or below, where the log scale cuts it off.")] * low
    return notes


def count_phrase(number: int, noun: str) -> str:
    """`1 point` or `2 points`, with what they are."""
    words = "{count:,} " + (f"{noun} that is" if number == 1 else f"{noun}s that are")
    return translate(words, count=number)


PLOT_HEIGHT = 230.0  # of the area itself
MAX_Y_TICKS = 7  # numbers along the upright axis


@dataclass(frozen=True)
class PlotArea:
    """The plot area with both scales."""

    x: Scale
    y: Scale
    integer_x: bool  # halves make no sense along x

    @property
    def y_ticks(self) -> list[float]:
        """Ticks of the y axis."""
        return axis_ticks(self.y.low, self.y.high, MAX_Y_TICKS, self.y.kind)

    @property
    def x_ticks(self) -> list[float]:
        """As many ticks of the x axis as fit side by side."""
        for max_ticks in range(9, 2, -1):
            ticks = axis_ticks(self.x.low, self.x.high, max_ticks, self.x.kind, integers_only=self.integer_x)
            spots = [
                (self.x.position(value), text_width(words))
                for value, words in zip(ticks, format_ticks(ticks), strict=True)
            ]
            gaps = [b - a - (wide_a + wide_b) / 2 for (a, wide_a), (b, wide_b) in itertools.pairwise(spots)]
            if all(gap > 12 for gap in gaps):
                return ticks
        return axis_ticks(self.x.low, self.x.high, 2, self.x.kind, integers_only=self.integer_x)


def fit_plot_area(
    series: Sequence[Series],
    marks: Sequence[ReferenceLine],
    x_kind: ScaleKind,
    y_kind: ScaleKind,
    top: float,
    x_range: Sequence[float] = (),
) -> PlotArea:
    """The plot area that holds all points, bands and reference lines, and `x_range` on the x axis."""
    good = [
        (x, y)
        for one in series
        for x, y in [*zip(one.xs, one.ys, strict=True), *one.points]
        if is_drawable(x, x_kind) and is_drawable(y, y_kind)
    ]
    across = [x for x, _ in good] + [mark.value for mark in marks if mark.axis == "x"] + list(x_range)
    across += [x for one in series for x in one.missing]
    up = [y for _, y in good] + [mark.value for mark in marks if mark.axis == "y"]
    up += [value for one in series for value in [*one.low, *one.high]] if good else []
    y = fit_scale(up, y_kind, top + PLOT_HEIGHT, top, max_ticks=MAX_Y_TICKS)
    words = format_ticks(axis_ticks(y.low, y.high, MAX_Y_TICKS, y_kind))
    left = MARGIN + max(map(text_width, words), default=20.0) + 8
    integer_x = bool(across) and all(value == int(value) for value in across if is_drawable(value, x_kind))
    return PlotArea(fit_scale(across, x_kind, left + 8, CHART_WIDTH - MARGIN - 10), y, integer_x)


def draw_axes(area: PlotArea, x_label: str) -> tuple[list[str], float]:
    """Grid, numbers and the name of the x axis; the y position below them."""
    left, right, bottom = area.x.start - 8, area.x.end + 8, area.y.start
    drawn = []
    up, along = area.y_ticks, area.x_ticks
    for value, words in zip(up, format_ticks(up), strict=True):
        y = area.y.position(value)
        drawn += [line_element(left, y, right, y, "grid"), text_element(left - 6, y + 4.5, words, "soft", "end")]
    for value, words in zip(along, format_ticks(along), strict=True):
        x = area.x.position(value)
        half = text_width(words) / 2
        drawn += [line_element(x, bottom, x, bottom + 4, "axis")]
        drawn += [
            text_element(
                min(max(x, MARGIN + half), CHART_WIDTH - MARGIN / 2 - half),
                bottom + LINE_HEIGHT,
                words,
                "soft",
                "middle",
            )
        ]
    drawn += [line_element(left, bottom, right, bottom, "axis")]
    if area.x.kind == "linear" and area.y.kind == "linear" and area.y.low < 0 < area.y.high:
        drawn += [line_element(left, area.y.position(0), right, area.y.position(0), "axis")]
    kinds = [words for words, kind in (("x", area.x.kind), ("y", area.y.kind)) if kind == "log"]
    logs = translate(" ({names}: log scale)", names=translate(" and ").join(kinds)) if kinds else ""
    drawn.append(
        text_element(
            (left + right) / 2,
            bottom + 2 * LINE_HEIGHT + 2,
            truncate_text(x_label + logs, CHART_WIDTH - 2 * MARGIN),
            "soft",
            "middle",
        )
    )
    return drawn, bottom + 2 * LINE_HEIGHT + 6


def draw_reference_lines(area: PlotArea, marks: Sequence[ReferenceLine]) -> list[str]:
    """Reference lines with their labels, moved down where they would overlap."""
    drawn: list[str] = []
    taken: list[tuple[float, float, float]] = []  # from, to, foot
    for mark in marks:
        scale = area.x if mark.axis == "x" else area.y
        if not is_drawable(mark.value, scale.kind):
            continue
        spot, wide = scale.position(mark.value), text_width(mark.label)
        if mark.axis == "x":
            ahead = spot + 6 + wide <= area.x.end + 8
            start, foot = (spot + 5 if ahead else spot - 5 - wide), area.y.end - 5
            drawn.append(line_element(spot, area.y.start, spot, area.y.end, "mark", "3 3"))
        else:
            ahead, start, foot = False, area.x.end - wide, spot - 5
            drawn.append(line_element(area.x.start - 8, spot, area.x.end + 8, spot, "mark", "3 3"))
            foot = foot if foot > area.y.end + 12 else spot + 16
        while any(start < right and left < start + wide and abs(foot - at) < LINE_HEIGHT for left, right, at in taken):
            foot += LINE_HEIGHT
        taken.append((start, start + wide, foot))
        drawn.append(
            text_element(start if ahead else start + wide, foot, mark.label, "soft halo", "start" if ahead else "end")
        )
    return drawn
