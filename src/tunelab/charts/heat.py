"""A table whose cells are coloured by their numbers."""

import math
from collections.abc import Sequence

from tunelab.charts.numbers import human
from tunelab.charts.shapes import EDGE, LINE, framed, heading, notes, number, text
from tunelab.charts.style import WIDTH
from tunelab.charts.words import SIZE, cut, safe, width

LABELS = 210.0  # most room for the names of rows, and of columns that stand upright
TALL = 30.0  # of a row
FAINT, FULL = 0.06, 0.9  # how much colour the smallest and the largest number get
TURN = 0.7  # from here on the number is written in the colour of the paper


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    *,
    title: str,
    x_label: str = "",
    y_label: str = "",
    centre: float | None = None,
) -> str:
    """One SVG with a cell per row and column, its number inside.

    Args:
        rows: Names of the rows, from the top.
        columns: Names of the columns.
        values: A row each, with a value per column; what is no finite number leaves the cell empty.
        title: Above all.
        x_label: What the columns are.
        y_label: What the rows are.
        centre: Where given, numbers above and below it get two colours, stronger with distance.
    """
    if len(values) != len(rows) or any(len(row) != len(columns) for row in values):
        raise ValueError(f"a map of {len(rows)} x {len(columns)} cells got values of another shape")
    named, top = heading(title, y_label)
    left = EDGE + min(LABELS, max(map(width, rows), default=0.0)) + 8
    wide = (WIDTH - EDGE - left) / max(1, len(columns))
    small = min(SIZE, wide * 0.9 / max((len(human(v)) for row in values for v in row), default=1) / 0.58)
    drawn, foot = [], top + LINE
    upright = any(width(name) > wide - 4 for name in columns)
    deep = min(LABELS, max(map(width, columns), default=0.0)) if upright else 0.0
    for at, name in enumerate(columns):
        x = left + wide * (at + 0.5)
        if upright:
            shown = text(0, 0, cut(name, LABELS), "ink").replace(
                "<text", f'<text transform="rotate(-90 {number(x + 4)} {number(top + deep + 8)})"'
            )
            shown = shown.replace('x="0" y="0"', f'x="{number(x + 4)}" y="{number(top + deep + 8)}"')
            drawn.append(shown)
        else:
            drawn.append(text(x, top + 14, name, "ink", "middle"))
    foot += deep
    finite = [value for row in values for value in row if math.isfinite(value)]
    for line, name in enumerate(rows):
        y = foot + line * TALL
        drawn.append(text(left - 8, y + TALL / 2 + 4.5, cut(name, LABELS), "ink", "end"))
        for at, value in enumerate(values[line]):
            said = f"{name}, {columns[at]}: {human(value, 4)}"
            drawn += cell(left + wide * at, y, wide, value, finite, centre, said, small)
    foot += TALL * len(rows)
    if x_label:
        drawn.append(text((left + WIDTH - EDGE) / 2, foot + LINE, x_label, "soft", "middle"))
        foot += LINE + 2
    span = f"From {human(min(finite))} (faint) to {human(max(finite))} (full)." if finite else "no values"
    about = (
        f"Blue above {human(centre)}, orange below, fuller with distance." if centre is not None and finite else span
    )
    told, foot = notes([about], foot + 2)
    return framed([*named, *drawn, *told], foot, title, f"{len(rows)} rows and {len(columns)} columns")


def cell(
    x: float,
    y: float,
    wide: float,
    value: float,
    finite: Sequence[float],
    centre: float | None,
    said: str,
    small: float,
) -> list[str]:
    """One cell: its colour, its number, and what the pointer tells."""
    if not math.isfinite(value):
        return [text(x + wide / 2, y + TALL / 2 + 4.5, "-", "soft", "middle")]
    if centre is None:
        span = max(finite) - min(finite)
        share = (value - min(finite)) / span if span else 0.5
    else:
        reach = max(abs(other - centre) for other in finite)
        share = abs(value - centre) / reach if reach else 0.0
    strength = FAINT + (FULL - FAINT) * share
    hue = "c1" if centre is not None and value < centre else "c0"
    box = f'x="{number(x + 1)}" y="{number(y + 1)}" width="{number(wide - 2)}" height="{number(TALL - 2)}" rx="3"'
    ink = "on" if strength > TURN else "ink"
    size = f' style="font-size:{small:.0f}px"' if small < 12 else ""
    words = text(x + wide / 2, y + TALL / 2 + 4.5, human(value), ink, "middle").replace("<text", f"<text{size}", 1)
    fill = f'class="{hue}" fill="currentColor" fill-opacity="{strength:.2f}"'
    return [f"<rect {fill} {box}><title>{safe(said)}</title></rect>", words]
