"""A document written as report.html, report.md, one CSV file a table and one SVG file a chart."""

import base64
import csv
import hashlib
import io
import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tunelab.report.charts.svg import CHART_CSS, replace_invalid
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
    Table,
)
from tunelab.report.formatting import format_cell, truncate
from tunelab.runs.atomic_files import write_text

FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet would run as a formula


def write_report(document: Document, target: Path) -> dict[str, Path]:
    """Write report.html, report.md, CSV files and figures; each file is replaced in one move.

    Returns:
        What each file is, and where.
    """
    (target / "figures").mkdir(parents=True, exist_ok=True)
    write_text(target / "report.html", render_html(document))
    write_text(target / "report.md", render_markdown(document))
    for grid in document.tables():
        write_text(target / f"{grid.name}.csv", render_csv(grid))
    for chart in document.charts():
        write_text(target / "figures" / f"{chart.name}.svg", chart.svg)
    return {"report": target / "report.html", "as text": target / "report.md", "tables": target / "*.csv"}


def render_csv(grid: Table) -> str:
    """A table as CSV: numbers at full precision, gaps empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([csv_cell(name) for name in grid.columns])
    writer.writerows([csv_cell(value) for value in row] for row in grid.rows)
    return out.getvalue()


def csv_cell(value: CellValue) -> str:
    """A value as text; text that a spreadsheet would take for a formula is prefixed by a quote."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA_PREFIXES) else value
    return repr(value)


TEMPLATES = Path(__file__).parent / "templates"
MIN_FILTERED_ROWS = 10  # rows from which on a table gets a field to filter it
HTML_CELL_LENGTH = 160  # characters of a cell
BREAKABLE_DOT = ".\u200b"  # where the name of a setting may be broken on paper
MAX_UNBROKEN_WORD = 24  # characters of a word that is kept whole on paper


def render_html(document: Document, *, interactive: bool = True) -> str:
    """A document as one page; only the drawings of `tunelab.report.charts` are taken as they are.

    Args:
        document: The report.
        interactive: Whether tables sort and filter and a bar leads to the sections; else the page holds no script.
    """
    return render_page(
        "document.html",
        document.title,
        interactive=interactive,
        document=document,
        tone_labels=TONE_LABELS,
        cell_length=HTML_CELL_LENGTH,
        min_filtered_rows=MIN_FILTERED_ROWS,
        drawing=drawing_html,
        chart_runs=chart_runs,
        kind_of=lambda block: type(block).__name__,
        column_kinds=column_kinds,
        describe=describe_table,
        breakable=lambda name: name.replace(".", BREAKABLE_DOT),
        format_cell=format_cell,
        is_finite=lambda value: math.isfinite(value) and not isinstance(value, bool),
        exact=repr,
        truncate=truncate,
        long_word_class=long_word_class,
    )


def render_page(
    template: str,
    title: str,
    *,
    interactive: bool = False,
    printable: Callable[[str], str] = replace_invalid,
    **context: Any,
) -> str:
    """One HTML page from a template below `templates/`, with the one style sheet and, if interactive, the one script.

    All text is escaped.  The content policy lets nothing load and only this page's own script run, so text of a data
    set cannot act even if an escape were forgotten.

    Args:
        template: Its file name.
        title: Of the page.
        interactive: Whether the page holds the script.
        printable: Applied to every text of the context before it is escaped.
        context: The names that the template uses.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: printable(value) if type(value) is str else value,  # markup is a subclass of str
    )
    script = (TEMPLATES / "script.js").read_text(encoding="utf-8") if interactive else ""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; img-src data:; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return environment.get_template(template).render(
        title=title,
        policy=policy,
        style=(TEMPLATES / "style.css").read_text(encoding="utf-8") + CHART_CSS,
        script=script,
        interactive=interactive,
        **context,
    )


def drawing_html(chart: Chart) -> str:
    """The drawing without its style, which the page has once."""
    return chart.svg.replace(f"<style>{CHART_CSS}</style>", "")


def chart_runs(blocks: Sequence[Block]) -> Iterator[tuple[bool, list[Block]]]:
    """Blocks in their order, charts that follow each other together: whether they are charts, and the blocks."""
    for charts, run in itertools.groupby(blocks, lambda block: isinstance(block, Chart)):
        yield charts, list(run)


def describe_table(table: Table) -> str:
    """The caption of a table, and what the page leaves out of it."""
    lines = [table.caption] if table.caption else []
    if len(table.rows) > table.page_rows:
        lines.append(
            f"The page shows the first {table.page_rows:,} of {len(table.rows):,} rows; {table.name}.csv holds all."
        )
    return " ".join(lines)


def long_word_class(text: str) -> str:
    """A CSS class for text with a word so long that print must break it."""
    return " long" if max(map(len, text.split()), default=0) > MAX_UNBROKEN_WORD else ""


def column_kinds(table: Table) -> list[str]:
    """For each column, `number` if it holds numbers and perhaps gaps, else `text`."""
    columns = [[row[at] for row in table.rows if row[at] is not None] for at in range(len(table.columns))]
    return [
        "number" if values and all(isinstance(value, int | float) for value in values) else "text" for values in columns
    ]


MARKDOWN_ROWS = 30  # of a table; its CSV file holds all
MARKDOWN_CELL_LENGTH = 120  # characters of a cell
MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")


def render_markdown(document: Document) -> str:
    """A document as Markdown."""
    lines = [f"# {escape_markdown(document.title)}", "", escape_markdown(document.subtitle), ""]
    for section in document.sections:
        lines += [f"## {escape_markdown(section.title)}", ""]
        lines += [escape_markdown(section.introduction), ""] if section.introduction else []
        for block in section.blocks:
            lines += [*block_markdown(block), ""]
    return "\n".join(lines)


def escape_markdown(text: str) -> str:
    """Text that Markdown and HTML leave alone, on one line."""
    return MARKDOWN_SPECIAL.sub(r"\\\1", " ".join(text.split()))


def block_markdown(block: Block) -> Iterator[str]:
    """One block as lines of Markdown."""
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
                    f"  - {escape_markdown(name)}: {escape_markdown(truncate(text))}" for name, text in sample.fields
                )


def table_markdown(grid: Table) -> Iterator[str]:
    """The first rows as Markdown, and the name of the file with the others."""
    yield from [escape_markdown(grid.caption), ""] if grid.caption else []
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
