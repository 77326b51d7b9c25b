"""A document written as report.html, report.md, one CSV file a table and one SVG file a chart."""

import base64
import csv
import hashlib
import io
import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path

from tunelab.report.charts.svg import CHART_CSS as DRAWN
from tunelab.report.charts.svg import escape_markup
from tunelab.report.document import (
    TONE_LABELS,
    Block,
    BulletList,
    Cards,
    CellValue,
    Chart,
    Command,
    Document,
    Examples,
    Paragraph,
    Section,
    Table,
)
from tunelab.report.formatting import format_cell, format_count, truncate
from tunelab.runs.atomic_files import write_text

FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet would carry out


def write_report(document: Document, target: Path) -> dict[str, Path]:
    """Write every file; what is there by the same names is replaced, each file in one move.

    Returns:
        What each file is, and where.
    """
    (target / "figures").mkdir(parents=True, exist_ok=True)
    write_text(target / "report.html", render_html(document))
    write_text(target / "report.md", render_markdown(document))
    for grid in document.grids():
        write_text(target / f"{grid.name}.csv", render_csv(grid))
    for chart in document.charts():
        write_text(target / "figures" / f"{chart.name}.svg", chart.svg)
    return {"report": target / "report.html", "as text": target / "report.md", "tables": target / "*.csv"}


def render_csv(grid: Table) -> str:
    """A table as CSV: numbers in full, gaps empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([csv_cell(name) for name in grid.columns])
    writer.writerows([csv_cell(value) for value in row] for row in grid.rows)
    return out.getvalue()


def csv_cell(value: CellValue) -> str:
    """A value as text; text that a spreadsheet would take for a formula gets a quote before it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA_PREFIXES) else value
    return repr(value)


ASSETS = Path(__file__).parent


def render_html(document: Document) -> str:
    """The whole page.  All text is escaped; only the drawings of `tunelab.report.charts` are taken as they are.

    The content policy lets nothing load and only this page's own script run, so text of a data set cannot act even if
    an escape were forgotten.
    """
    style = (ASSETS / "page.css").read_text(encoding="utf-8") + DRAWN
    script = (ASSETS / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    anchors = [f"s{place}" for place in range(len(document.sections))]
    links = "".join(
        f'<a href="#{anchor}">{escape_markup(section.title)}</a>'
        for anchor, section in zip(anchors, document.sections, strict=True)
    )
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape_markup(document.title)}</title><style>{style}</style></head><body><main>",
            (
                f"<header><h1>{escape_markup(document.title)}</h1><p"
                f' class="soft">{escape_markup(document.subtitle)}</p></header>'
            ),
            f'<nav aria-label="Sections">{links}</nav>',
            *(
                piece
                for anchor, one in zip(anchors, document.sections, strict=True)
                for piece in section_html(anchor, one)
            ),
            f"</main><script>{script}</script></body></html>\n",
        ]
    )


def section_html(anchor: str, section: Section) -> Iterator[str]:
    """A section: its title, then its blocks, drawings side by side where there is room."""
    yield f'<section id="{anchor}"><h2>{escape_markup(section.title)}</h2>'
    if section.lead:
        yield f'<p class="soft">{escape_markup(section.lead)}</p>'
    for drawings, blocks in itertools.groupby(section.blocks, lambda block: isinstance(block, Chart)):
        if drawings:
            yield '<div class="figures">'
        for block in blocks:
            yield from block_html(block)
        if drawings:
            yield "</div>"
    yield "</section>"


def block_html(block: Block) -> Iterator[str]:
    """One block."""
    match block:
        case Paragraph(text, tone):
            yield f'<p class="{tone}">{escape_markup(text)}</p>'
        case BulletList(lines):
            yield '<ul class="verdicts">'
            yield from (bullet_html(line) for line in lines)
            yield "</ul>"
        case Cards(cards):
            yield '<dl class="cards">'
            for card in cards:
                note = f'<dd class="note">{escape_markup(card.note)}</dd>' if card.note else ""
                yield f"<div><dt>{escape_markup(card.name)}</dt><dd>{escape_markup(card.value)}</dd>{note}</div>"
            yield "</dl>"
        case Chart(_, svg, words, _, wide):
            below = f"<figcaption>{escape_markup(words)}</figcaption>" if words else ""
            kind = "whole" if wide else "half"
            drawing = svg.replace(f"<style>{DRAWN}</style>", "")  # the page has it once
            yield f'<figure class="{kind}">{drawing}{below}</figure>'
        case Table():
            yield from table_html(block)
        case Command(text, words):
            said = f'<p class="soft">{escape_markup(words)}</p>' if words else ""
            yield f'<div class="command">{said}<pre tabindex="0"><code>{escape_markup(text)}</code></pre></div>'
        case Examples():
            yield from examples_html(block)


def bullet_html(line: Paragraph) -> str:
    """A sentence with a word for its tone: colour alone tells nothing to some readers and in print."""
    mark = f"<b>{TONE_LABELS[line.tone]}</b> " if TONE_LABELS[line.tone] else ""
    return f'<li class="{line.tone}">{mark}{escape_markup(line.text)}</li>'


def examples_html(block: Examples) -> Iterator[str]:
    """Records one below the other, each part under its name."""
    if block.words:
        yield f'<p class="soft">{escape_markup(block.words)}</p>'
    yield '<div class="samples">'
    for sample in block.samples:
        yield f'<article class="{sample.tone}"><h3>{escape_markup(sample.title)}</h3><dl>'
        yield "".join(example_part_html(name, text) for name, text in sample.parts)
        yield "</dl></article>"
    yield "</div>"


def example_part_html(name: str, text: str) -> str:
    """A named text, its line breaks kept."""
    return f'<dt>{escape_markup(name)}</dt><dd dir="auto">{escape_markup(text) or "<i>empty</i>"}</dd>'


MIN_FILTERED_ROWS = 10  # rows from which on a table gets a field to filter it
HTML_CELL_LENGTH = 160  # characters of a cell
BREAKABLE_DOT = ".\u200b"  # where the name of a setting may be broken on paper
MAX_UNBROKEN_WORD = 24  # characters of a word that is kept whole on paper


def table_html(grid: Table) -> Iterator[str]:
    """The table, with a line on what the page leaves out."""
    name = f"t-{escape_markup(grid.name)}"
    rest = len(grid.rows) - grid.most
    told = [grid.words] * bool(grid.words)
    told += [f"The page shows the first {grid.most:,} of {len(grid.rows):,} rows; {grid.name}.csv holds all."] * (
        rest > 0
    )
    about = f' aria-describedby="{name}-about"' if told else ""
    if told:
        yield f'<p class="soft" id="{name}-about">{escape_markup(" ".join(told))}</p>'
    if len(grid.rows) >= MIN_FILTERED_ROWS:
        hint = "filter: words, or column&gt;value" if has_number_column(grid) else "filter by words"
        yield f'<p class="filter"><input type="search" data-for="{name}" placeholder="{hint}"'
        yield f' aria-label="filter {escape_markup(grid.name)}" spellcheck="false"> <output></output></p>'
    kinds = ["number" if is_number_column(grid, at) else "text" for at in range(len(grid.columns))]
    yield f'<div class="wide" tabindex="0"><table id="{name}"{about}>'
    heads = (
        f'<th scope="col" class="{kind}{long_word_class(name)}"'
        f' data-name="{escape_markup(name).replace(".", BREAKABLE_DOT)}"><button'
        f' type="button">{escape_markup(name)}</button></th>'
        for name, kind in zip(grid.columns, kinds, strict=True)
    )
    yield f"<thead><tr>{''.join(heads)}</tr></thead><tbody>"
    for place, row in enumerate(grid.rows[: grid.most]):
        key = f' data-key="{escape_markup(grid.keys[place])}"' if grid.keys else ""
        strong = ' class="strong"' if place in grid.strong else ""
        cells = "".join(cell_html(value, kind) for value, kind in zip(row, kinds, strict=True))
        yield f"<tr{key}{strong}>{cells}</tr>"
    yield "</tbody></table></div>"
    if not grid.rows:
        yield f'<p class="soft">{format_count(0, "row")}</p>'


def cell_html(value: CellValue, kind: str) -> str:
    """A cell; the exact number stands beside the rounded one."""
    if kind == "number" and isinstance(value, int | float):
        raw = f' data-v="{value!r}"' if math.isfinite(value) and not isinstance(value, bool) else ""
        return f'<td class="number"{raw}>{escape_markup(format_cell(value))}</td>'
    text = format_cell(value)
    said = f' title="{escape_markup(truncate(text))}"' if len(text) > HTML_CELL_LENGTH else ""
    return (
        f'<td class="{kind}{long_word_class(text)}"'
        f' dir="auto"{said}>{escape_markup(truncate(text, HTML_CELL_LENGTH) if said else text)}</td>'
    )


def long_word_class(text: str) -> str:
    """A class for text with a word so long that paper, which does not scroll, must break it."""
    return " long" if max(map(len, text.split()), default=0) > MAX_UNBROKEN_WORD else ""


def is_number_column(grid: Table, at: int) -> bool:
    """Whether a column holds numbers, and perhaps gaps."""
    values = [row[at] for row in grid.rows if row[at] is not None]
    return bool(values) and all(isinstance(value, int | float) for value in values)


def has_number_column(grid: Table) -> bool:
    """Whether any column holds numbers."""
    return any(is_number_column(grid, at) for at in range(len(grid.columns)))


MARKDOWN_ROWS = 30  # of a table; its CSV file holds all
MARKDOWN_CELL_LENGTH = 120  # characters of a cell
MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")


def render_markdown(document: Document) -> str:
    """The whole text."""
    lines = [f"# {escape_markdown(document.title)}", "", escape_markdown(document.subtitle), ""]
    for section in document.sections:
        lines += [f"## {escape_markdown(section.title)}", ""]
        lines += [escape_markdown(section.lead), ""] if section.lead else []
        for block in section.blocks:
            lines += [*block_markdown(block), ""]
    return "\n".join(lines)


def escape_markdown(text: str) -> str:
    """Text that Markdown and HTML leave alone, on one line."""
    return MARKDOWN_SPECIAL.sub(r"\\\1", " ".join(text.split()))


def block_markdown(block: Block) -> Iterator[str]:
    """One block as lines."""
    match block:
        case Paragraph(text, _):
            yield escape_markdown(text)
        case BulletList(lines):
            for line in lines:
                mark = TONE_LABELS[line.tone]
                yield f"- **{mark}** {escape_markdown(line.text)}" if mark else f"- {escape_markdown(line.text)}"
        case Cards(cards):
            for card in cards:
                note = f" ({escape_markdown(card.note)})" if card.note else ""
                yield f"- {escape_markdown(card.name)}: **{escape_markdown(card.value)}**{note}"
        case Chart(name, _, words, title, _):
            yield f"![{escape_markdown(title)}](figures/{name}.svg)"
            yield from ["", escape_markdown(words)] if words else []
        case Table():
            yield from table_markdown(block)
        case Command(text, words):
            yield from [escape_markdown(words), ""] if words else []
            fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 3)
            yield from [fence if fence != "```" else "```sh", text, fence]
        case Examples(_, samples, words):
            yield from [escape_markdown(words), ""] if words else []
            for sample in samples:
                yield f"- {escape_markdown(sample.title)}"
                yield from (
                    f"  - {escape_markdown(name)}: {escape_markdown(truncate(text))}" for name, text in sample.parts
                )


def table_markdown(grid: Table) -> Iterator[str]:
    """The first rows, and where the others are."""
    yield from [escape_markdown(grid.words), ""] if grid.words else []
    yield "| " + " | ".join(map(escape_markdown, grid.columns)) + " |"
    yield "|" + "---|" * len(grid.columns)
    for row in grid.rows[:MARKDOWN_ROWS]:
        yield (
            "| "
            + " | ".join(escape_markdown(truncate(format_cell(value), MARKDOWN_CELL_LENGTH)) for value in row)
            + " |"
        )
    if len(grid.rows) > MARKDOWN_ROWS:
        yield from ["", f"The first {MARKDOWN_ROWS} of {len(grid.rows):,} rows; {grid.name}.csv holds all."]
