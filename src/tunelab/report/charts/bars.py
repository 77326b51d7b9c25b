"""Bar charts, vertical or horizontal, with error bars."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from tunelab.analysis.number_format import format_number, format_ticks
from tunelab.language.translation import translate
from tunelab.report.charts.axes import Scale, axis_ticks, fit_scale, is_drawable
from tunelab.report.charts.svg import (
    CHART_WIDTH,
    LINE_HEIGHT,
    MARGIN,
    chart_heading,
    chart_legend,
    chart_notes,
    colour_class,
    coordinate,
    escape_markup,
    line_element,
    svg_document,
    text_element,
    text_width,
    truncate_text,
)

BAR_PLOT_HEIGHT = 230.0
MAX_LABEL_WIDTH = 200.0  # most room for names beside level bars


@dataclass(frozen=True)
class Bars:
    """One bar in every group.

    Attributes:
        name: What the legend calls it.
        values: One per group; a value that is not finite is left out, with a note.
        low: Lower end of the spread; empty or as many as `values`.
        high: Upper end.
        points: The single values behind each bar, drawn as dots on it; empty or as many lists as `values`.
        best: The bar that is called best beside its number; -1 for none.
    """

    name: str
    values: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    points: Sequence[Sequence[float]] = ()
    best: int = field(default=-1, kw_only=True)

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or len(self.low) not in (0, len(self.values)):
            raise ValueError(f"the spread of bars {self.name!r} does not match their {len(self.values)} values")


def bar_chart(
    groups: Sequence[str], bars: Sequence[Bars], *, title: str, value_label: str, level: bool | None = None
) -> str:
    """One SVG with a group of bars per name, from 0, each with its number and its error bar if there is one.

    Args:
        groups: Names of the groups.
        bars: What each group holds.
        title: Above all.
        value_label: What the values are.
        level: Bars lie; as the length of their names requires when left out.
    """
    for one in bars:
        if len(one.values) != len(groups):
            raise ValueError(f"bars {one.name!r} have {len(one.values)} values for {len(groups)} groups")
    room = (CHART_WIDTH - 2 * MARGIN - 40) / max(1, len(groups))
    lying = any(text_width(name) > room - 6 for name in groups) if level is None else level
    named, foot = chart_heading(title, "" if lying else value_label)
    keys, foot = chart_legend([one.name for one in bars], foot, "bar")
    known = [[*one.values, *one.low, *one.high, *chain(*one.points)] for one in bars]
    ends = [value for values in known for value in values if is_drawable(value, "linear")]
    body, foot = (horizontal_bars if lying else vertical_bars)(groups, bars, [0.0, *ends], foot + 10, value_label)
    odd = [
        f"{group}, {one.name}: {format_number(value)}"
        for one in bars
        for group, value in zip(groups, one.values, strict=True)
        if not is_drawable(value, "linear")
    ]
    notes, foot = chart_notes(
        [translate("Not drawn: {names}.", names=translate("; ").join(odd))] * bool(odd)
        + [translate("no values")] * (not ends),
        foot,
    )
    return svg_document(
        [*named, *keys, *body, *notes],
        foot,
        title,
        translate("{value_label} of {names}", value_label=value_label, names=", ".join(groups)),
    )


def vertical_bars(
    groups: Sequence[str], bars: Sequence[Bars], ends: Sequence[float], top: float, label: str
) -> tuple[list[str], float]:
    """Bars that grow upwards, names below."""
    scale = fit_scale(ends, "linear", top + BAR_PLOT_HEIGHT, top, max_ticks=7)
    marks = axis_ticks(scale.low, scale.high, 7)
    left = MARGIN + max(map(text_width, format_ticks(marks))) + 8
    drawn = []
    for value, words in zip(marks, format_ticks(marks), strict=True):
        y = scale.position(value)
        drawn += [line_element(left, y, CHART_WIDTH - MARGIN, y, "axis" if value == 0 else "grid")]
        drawn += [text_element(left - 6, y + 4.5, words, "soft", "end")]
    room = (CHART_WIDTH - MARGIN - left) / max(1, len(groups))
    thick = min(48.0, room * 0.76 / max(1, len(bars)))
    for at, name in enumerate(groups):
        middle = left + room * (at + 0.5)
        drawn.append(
            text_element(middle, top + BAR_PLOT_HEIGHT + LINE_HEIGHT, truncate_text(name, room - 2), "ink", "middle")
        )
        for place, one in enumerate(bars):
            start = middle + thick * (place - len(bars) / 2)
            drawn += bar_elements(one, place, at, name, scale, (start + 1, thick - 2), lying=False)
    return drawn, top + BAR_PLOT_HEIGHT + LINE_HEIGHT + 4


def horizontal_bars(
    groups: Sequence[str], bars: Sequence[Bars], ends: Sequence[float], top: float, label: str
) -> tuple[list[str], float]:
    """Bars that grow to the right, names beside them and each value behind its bar."""
    longest = max(map(text_width, groups), default=0.0)
    above = longest > MAX_LABEL_WIDTH  # names too long to stand beside their bars stand over them
    left = MARGIN + (0.0 if above else longest + 8)
    numbers = max((text_width(format_number(value)) for one in bars for value in one.values), default=0.0) + 10
    numbers += text_width(" " + translate("best")) * any(one.best >= 0 for one in bars)
    scale = fit_scale(ends, "linear", left, CHART_WIDTH - MARGIN - numbers, max_ticks=5)
    thick, gap = (18.0 if len(bars) < 3 else 15.0), (10.0 + LINE_HEIGHT if above else 10.0)
    each = thick * len(bars) + gap
    bottom = top + len(groups) * each
    drawn = []
    marks = axis_ticks(scale.low, scale.high, 5)
    for value, words in zip(marks, format_ticks(marks), strict=True):
        x = scale.position(value)
        drawn += [line_element(x, top, x, bottom, "axis" if value == 0 else "grid")]
        drawn += [text_element(x, bottom + LINE_HEIGHT - 2, words, "soft", "middle")]
    for at, name in enumerate(groups):
        y = top + at * each + gap - 5
        if above:
            drawn.append(text_element(left, y - 5, truncate_text(name, CHART_WIDTH - 2 * MARGIN), "ink halo"))
        else:
            drawn.append(text_element(left - 8, y + thick * len(bars) / 2 + 4.5, name, "ink", "end"))
        for place, one in enumerate(bars):
            drawn += bar_elements(one, place, at, name, scale, (y + place * thick + 1, thick - 2), lying=True)
    drawn.append(
        text_element(
            (left + CHART_WIDTH - MARGIN) / 2,
            bottom + 2 * LINE_HEIGHT,
            truncate_text(label, CHART_WIDTH - 2 * MARGIN),
            "soft",
            "middle",
        )
    )
    return drawn, bottom + 2 * LINE_HEIGHT + 4


def bar_elements(
    bars: Bars, place: int, at: int, name: str, scale: Scale, across: tuple[float, float], *, lying: bool
) -> Iterator[str]:
    """A bar with its error bar, and its number."""
    value = bars.values[at]
    if not is_drawable(value, "linear"):
        return
    (start, thick), zero, end = across, scale.position(0), scale.position(value)
    low, size = min(zero, end), abs(end - zero)
    box = (low, start, size, thick) if lying else (start, low, thick, size)
    tooltip = f"{name}, {bars.name}: {format_number(value, 4)}".replace(", :", ":")
    ends = (scale.position(bars.low[at]), scale.position(bars.high[at])) if has_spread(bars, at) else ()
    tooltip += (
        translate(" ({low} to {high})", low=format_number(bars.low[at]), high=format_number(bars.high[at]))
        if ends
        else ""
    )
    x, y, wide, high = map(coordinate, box)
    yield (
        f'<rect class="{colour_class(place)}" x="{x}" y="{y}" width="{wide}" height="{high}" fill="currentColor"'
        f' fill-opacity=".85"><title>{escape_markup(tooltip)}</title></rect>'
    )
    middle = start + thick / 2
    spots = [scale.position(point) for point in bars.points[at]] if bars.points else []
    for spot in spots:
        x, y = (coordinate(spot), coordinate(middle)) if lying else (coordinate(middle), coordinate(spot))
        yield f'<circle cx="{x}" cy="{y}" r="2.6" class="paper" stroke="currentColor" stroke-opacity=".8"/>'
    if ends:
        a, b = ends
        whisker = (a, middle, b, middle) if lying else (middle, a, middle, b)
        caps = [(e, middle - 4, e, middle + 4) if lying else (middle - 4, e, middle + 4, e) for e in ends]
        yield from (line_element(*corner, "whisker") for corner in (whisker, *caps))
    if lying:
        number = format_number(value) + f" {translate('best')}" * (at == bars.best)
        yield text_element(max(end, zero, *ends, *spots) + 5, middle + 4.5, number, "soft")
    elif text_width(format_number(value)) < thick + 8:
        yield text_element(middle, min(end, zero, *ends, *spots) - 5, format_number(value), "soft halo", "middle")


def has_spread(bars: Bars, at: int) -> bool:
    """Whether both ends of an error bar are finite."""
    return bool(bars.low) and math.isfinite(bars.low[at]) and math.isfinite(bars.high[at])
