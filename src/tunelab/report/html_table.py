"""A table as HTML: cells carry their value, so that the page's script sorts and filters by it.  Pure."""

import math
from collections.abc import Iterator

from tunelab.charts.words import safe
from tunelab.report.blocks import Grid, Value
from tunelab.report.words import counted, shortened, shown

FILTERED = 10  # rows from which on a table gets a field to filter it
TEXT = 160  # characters of a cell
DOT = ".\u200b"  # where the name of a setting may be broken on paper
WORD = 24  # characters of a word that is kept whole on paper


def table(grid: Grid) -> Iterator[str]:
    """The table, with a line on what the page leaves out."""
    name = f"t-{safe(grid.name)}"
    rest = len(grid.rows) - grid.most
    told = [grid.words] * bool(grid.words)
    told += [f"The page shows the first {grid.most:,} of {len(grid.rows):,} rows; {grid.name}.csv holds all."] * (
        rest > 0
    )
    about = f' aria-describedby="{name}-about"' if told else ""
    if told:
        yield f'<p class="soft" id="{name}-about">{safe(" ".join(told))}</p>'
    if len(grid.rows) >= FILTERED:
        hint = "filter: words, or column&gt;value" if numbers(grid) else "filter by words"
        yield f'<p class="filter"><input type="search" data-for="{name}" placeholder="{hint}"'
        yield f' aria-label="filter {safe(grid.name)}" spellcheck="false"> <output></output></p>'
    kinds = ["number" if number(grid, at) else "text" for at in range(len(grid.columns))]
    yield f'<div class="wide" tabindex="0"><table id="{name}"{about}>'
    heads = (
        f'<th scope="col" class="{kind}{breakable(name)}" data-name="{safe(name).replace(".", DOT)}">'
        f'<button type="button">{safe(name)}</button></th>'
        for name, kind in zip(grid.columns, kinds, strict=True)
    )
    yield f"<thead><tr>{''.join(heads)}</tr></thead><tbody>"
    for place, row in enumerate(grid.rows[: grid.most]):
        key = f' data-key="{safe(grid.keys[place])}"' if grid.keys else ""
        strong = ' class="strong"' if place in grid.strong else ""
        cells = "".join(cell(value, kind) for value, kind in zip(row, kinds, strict=True))
        yield f"<tr{key}{strong}>{cells}</tr>"
    yield "</tbody></table></div>"
    if not grid.rows:
        yield f'<p class="soft">{counted(0, "row")}</p>'


def cell(value: Value, kind: str) -> str:
    """A cell; the exact number stands beside the rounded one."""
    if kind == "number" and isinstance(value, int | float):
        raw = f' data-v="{value!r}"' if math.isfinite(value) and not isinstance(value, bool) else ""
        return f'<td class="number"{raw}>{safe(shown(value))}</td>'
    text = shown(value)
    said = f' title="{safe(shortened(text))}"' if len(text) > TEXT else ""
    return f'<td class="{kind}{breakable(text)}" dir="auto"{said}>{safe(shortened(text, TEXT) if said else text)}</td>'


def breakable(text: str) -> str:
    """A class for text with a word so long that paper, which does not scroll, must break it."""
    return " long" if max(map(len, text.split()), default=0) > WORD else ""


def number(grid: Grid, at: int) -> bool:
    """Whether a column holds numbers, and perhaps gaps."""
    values = [row[at] for row in grid.rows if row[at] is not None]
    return bool(values) and all(isinstance(value, int | float) for value in values)


def numbers(grid: Grid) -> bool:
    """Whether any column holds numbers."""
    return any(number(grid, at) for at in range(len(grid.columns)))
