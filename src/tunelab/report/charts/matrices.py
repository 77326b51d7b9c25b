"""Heat maps, and parallel coordinates of trials over their settings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tunelab.analysis.number_format import format_number
from tunelab.language.translation import translate
from tunelab.report.charts.svg import (
    CHART_WIDTH,
    FONT_SIZE,
    LINE_HEIGHT,
    MARGIN,
    chart_heading,
    chart_notes,
    coordinate,
    escape_markup,
    line_element,
    svg_document,
    text_element,
    text_width,
    truncate_text,
)

MAX_NAME_WIDTH = 210.0  # most room for the names of rows, and of columns that stand upright
ROW_HEIGHT = 30.0  # of a row
MIN_CELL_OPACITY, MAX_CELL_OPACITY = 0.06, 0.9  # how much colour the smallest and the largest number get
INVERT_TEXT_FROM = 0.7  # from here on the number is written in the colour of the paper


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    *,
    title: str,
    x_label: str = "",
    y_label: str = "",
    centre: float | None = None,
    full: float | None = None,
) -> str:
    """One SVG with a cell per row and column, its number inside.

    Args:
        rows: Names of the rows, from the top.
        columns: Names of the columns.
        values: A row each, with a value per column; what is no finite number leaves the cell empty.
        title: Above all.
        x_label: What the columns are.
        y_label: What the rows are.
        full: Where given, colours go from 0 to this number or the largest, so that small numbers stay faint.
        centre: Where given, numbers above and below it get two colours, stronger with distance.
    """
    if len(values) != len(rows) or any(len(row) != len(columns) for row in values):
        raise ValueError(f"a map of {len(rows)} x {len(columns)} cells got values of another shape")
    named, top = chart_heading(title, y_label)
    left = MARGIN + min(MAX_NAME_WIDTH, max(map(text_width, rows), default=0.0)) + 8
    wide = (CHART_WIDTH - MARGIN - left) / max(1, len(columns))
    small = min(FONT_SIZE, wide * 0.9 / max((len(format_number(v)) for row in values for v in row), default=1) / 0.58)
    drawn, foot = [], top + LINE_HEIGHT
    upright = any(text_width(name) > wide - 4 for name in columns)
    deep = min(MAX_NAME_WIDTH, max(map(text_width, columns), default=0.0)) if upright else 0.0
    for at, name in enumerate(columns):
        x = left + wide * (at + 0.5)
        if upright:
            label = text_element(0, 0, truncate_text(name, MAX_NAME_WIDTH), "ink").replace(
                "<text", f'<text transform="rotate(-90 {coordinate(x + 4)} {coordinate(top + deep + 8)})"'
            )
            label = label.replace('x="0" y="0"', f'x="{coordinate(x + 4)}" y="{coordinate(top + deep + 8)}"')
            drawn.append(label)
        else:
            drawn.append(text_element(x, top + 14, name, "ink", "middle"))
    foot += deep
    finite = [value for row in values for value in row if math.isfinite(value)]
    finite += [] if full is None or not finite else [0.0, full]
    for line, name in enumerate(rows):
        y = foot + line * ROW_HEIGHT
        drawn.append(
            text_element(left - 8, y + ROW_HEIGHT / 2 + 4.5, truncate_text(name, MAX_NAME_WIDTH), "ink", "end")
        )
        for at, value in enumerate(values[line]):
            tooltip = f"{name}, {columns[at]}: {format_number(value, 4)}"
            drawn += cell_elements(left + wide * at, y, wide, value, finite, centre, tooltip, small)
    foot += ROW_HEIGHT * len(rows)
    if x_label:
        drawn.append(text_element((left + CHART_WIDTH - MARGIN) / 2, foot + LINE_HEIGHT, x_label, "soft", "middle"))
        foot += LINE_HEIGHT + 2
    span = (
        translate(
            "From {low} (faint) to {high} (full).",
            low=format_number(min(finite)),
            high=format_number(max(finite)),
        )
        if finite
        else translate("no values")
    )
    about = (
        translate("Blue above {centre}, orange below, fuller with distance.", centre=format_number(centre))
        if centre is not None and finite
        else span
    )
    notes, foot = chart_notes([about], foot + 2)
    return svg_document(
        [*named, *drawn, *notes],
        foot,
        title,
        translate("{count} [row|rows] and {width} [column|columns]", count=len(rows), width=len(columns)),
    )


def cell_elements(
    x: float,
    y: float,
    wide: float,
    value: float,
    finite: Sequence[float],
    centre: float | None,
    tooltip: str,
    small: float,
) -> list[str]:
    """One cell: its colour, its number and its tooltip."""
    if not math.isfinite(value):
        return [text_element(x + wide / 2, y + ROW_HEIGHT / 2 + 4.5, "-", "soft", "middle")]
    if centre is None:
        span = max(finite) - min(finite)
        share = (value - min(finite)) / span if span else 0.5
    else:
        reach = max(abs(other - centre) for other in finite)
        share = abs(value - centre) / reach if reach else 0.0
    strength = MIN_CELL_OPACITY + (MAX_CELL_OPACITY - MIN_CELL_OPACITY) * share
    hue = "c1" if centre is not None and value < centre else "c0"
    box = (
        f'x="{coordinate(x + 1)}" y="{coordinate(y + 1)}" width="{coordinate(wide - 2)}"'
        f' height="{coordinate(ROW_HEIGHT - 2)}" rx="3"'
    )
    ink = "on" if strength > INVERT_TEXT_FROM else "ink"
    size = f' style="font-size:{small:.0f}px"' if small < 12 else ""
    words = text_element(x + wide / 2, y + ROW_HEIGHT / 2 + 4.5, format_number(value), ink, "middle").replace(
        "<text", f"<text{size}", 1
    )
    fill = f'class="{hue}" fill="currentColor" fill-opacity="{strength:.2f}"'
    return [f"<rect {fill} {box}><title>{escape_markup(tooltip)}</title></rect>", words]


AXIS_HEIGHT = 250.0
MIN_LINE_OPACITY, MAX_LINE_OPACITY = 0.12, 0.9
MAX_LINES = 300  # lines; more than these cover each other


@dataclass(frozen=True)
class Axis:
    """One axis of parallel coordinates.

    Attributes:
        name: What it is.
        positions: Where each line crosses it, in [0, 1] from its foot; nan leaves a line without this axis.
        ticks: Places with their words.
    """

    name: str
    positions: Sequence[float]
    ticks: Sequence[tuple[float, str]]


def parallel_coordinates(
    axes: Sequence[Axis], worth: Sequence[float], keys: Sequence[str], tooltips: Sequence[str], *, title: str
) -> str:
    """One SVG with a line per trial through all axes.

    Args:
        axes: From left to right.
        worth: How good each trial is, in [0, 1]; the best are drawn last, above the others.
        keys: What each line belongs to, as in a table's rows.
        tooltips: Of each line.
        title: Above all.
    """
    if any(len(one.positions) != len(worth) for one in axes) or not len(worth) == len(keys) == len(tooltips):
        raise ValueError(f"parallel coordinates of {len(worth)} lines got axes, keys or words of another number")
    named, foot = chart_heading(title)
    top, bottom = foot + 2 * LINE_HEIGHT, foot + 2 * LINE_HEIGHT + AXIS_HEIGHT
    left, right = MARGIN + 34, CHART_WIDTH - MARGIN - 40
    gap = (right - left) / max(1, len(axes) - 1)
    spots = [left + gap * at for at in range(len(axes))]
    drawn = []
    order = sorted(range(len(worth)), key=lambda at: worth[at])[-MAX_LINES:]
    for at in order:
        crossed = [
            (x, bottom - AXIS_HEIGHT * one.positions[at])
            for x, one in zip(spots, axes, strict=True)
            if math.isfinite(one.positions[at])
        ]
        if len(crossed) < 2:
            continue
        strength, best = MIN_LINE_OPACITY + (MAX_LINE_OPACITY - MIN_LINE_OPACITY) * worth[at] ** 3, at == order[-1]
        d = "M" + "L".join(f"{coordinate(x)} {coordinate(y)}" for x, y in crossed)
        hue, wide = ("c1", "3") if best else ("c0", "1.4")
        drawn.append(
            f'<path class="{hue}" data-key="{escape_markup(keys[at])}" d="{d}" fill="none" stroke="currentColor"'
            f' stroke-width="{wide}" stroke-opacity="{1 if best else round(strength, 2)}">'
            f"<title>{escape_markup(tooltips[at])}</title></path>"
        )
    for at, (x, one) in enumerate(zip(spots, axes, strict=True)):
        drawn.append(line_element(x, top, x, bottom, "axis"))
        first, last = at == 0, at == len(axes) - 1
        anchor = "start" if first else "end" if last else "middle"
        head = MARGIN if first else CHART_WIDTH - MARGIN if last else x
        foot_of_name = top - 10 - (LINE_HEIGHT if at % 2 else 0)  # names take turns, so that they do not touch
        drawn.append(
            text_element(
                head, foot_of_name, truncate_text(one.name, gap * (1.2 if first or last else 1.9)), "ink halo", anchor
            )
        )
        for place, words in one.ticks:
            y = bottom - AXIS_HEIGHT * place
            drawn.append(line_element(x - 3, y, x + 3, y, "axis"))
            drawn.append(text_element(x + 5, y + 4, truncate_text(words, max(38.0, gap - 8)), "soft small halo"))
    notes = [translate("A line for each trial, fuller the better it is; the best is drawn thick.")]
    notes += [translate("Drawn are the best {most} of {count:,}.", most=MAX_LINES, count=len(worth))] * (
        len(worth) > MAX_LINES
    )
    below, end = chart_notes(notes, bottom + 6)
    return svg_document(
        [*named, *drawn, *below], end, title, translate("axes: {names}", names=", ".join(one.name for one in axes))
    )


def number_ticks(low: float, high: float, *, log: bool) -> list[tuple[float, str]]:
    """Ticks at the ends and the middle of a numeric axis."""
    if high <= low:
        return [(0.5, format_number(low))]
    middle = math.sqrt(low * high) if log else (low + high) / 2
    return [(0.0, format_number(low, 2)), (0.5, format_number(middle, 2)), (1.0, format_number(high, 2))]
