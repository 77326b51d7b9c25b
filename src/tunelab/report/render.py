"""A document written as report.html, report.md, one CSV file a table and one SVG file a chart."""

import base64
import csv
import hashlib
import io
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tunelab.language.translation import current_language, localize, message, translate
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
    Fold,
    Matrix,
    Paragraph,
    Table,
    Verdict,
)
from tunelab.report.formatting import format_cell, format_percent, truncate
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
    return {
        message("report"): target / "report.html",
        message("as text"): target / "report.md",
        message("tables"): target / "*.csv",
    }


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
HTML_CELL_LENGTH = 300  # characters of a cell
LONG_TABLE, OPEN_ROWS = 20, 15  # rows from which on a table opens with fewer, and with how many
NARROW_MATRIX = 10  # labels up to which a matrix stands beside its scores
LETTER_PIXELS, CELL_PADDING_PIXELS = 8.5, 24  # what the width of a table is estimated by
WRAPPED_TEXT = 32  # characters of a cell up to which it stands on one line
COLUMN_PIXELS = 560  # up to this width a table stands beside a chart
BREAKABLE_DOT = ".\u200b"  # where the name of a setting may be broken on paper
MAX_UNBROKEN_WORD = 24  # characters of a word that is kept whole on paper


def render_html(document: Document, *, interactive: bool = True, home: str = "") -> str:
    """A document as one page; only the drawings of `tunelab.report.charts` are taken as they are.

    Args:
        document: The report.
        interactive: Whether tables sort and filter and a bar leads to the sections; else the page holds no script.
        home: Address of the page with all runs, where this one is served beside it.
    """
    return render_page(
        "document.html",
        document.title,
        scripts=("script.js",) if interactive else (),
        interactive=interactive,
        home=home,
        document=document,
        tone_labels=TONE_LABELS,
        cell_length=HTML_CELL_LENGTH,
        prose_length=WRAPPED_TEXT,
        min_filtered_rows=MIN_FILTERED_ROWS,
        long_table=LONG_TABLE,
        open_rows=OPEN_ROWS,
        drawing=drawing_html,
        layout_runs=layout_runs,
        section_anchors={section.title: f"s{place}" for place, section in reversed([*enumerate(document.sections)])},
        matrix_rows=matrix_rows,
        kind_of=lambda block: type(block).__name__,
        column_kinds=column_kinds,
        grouped_columns=grouped_columns,
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
    scripts: Sequence[str] = (),
    printable: Callable[[str], str] = replace_invalid,
    **context: Any,
) -> str:
    """One HTML page from a template below `templates/`, with the one style sheet and its scripts.

    All text is escaped.  The content policy lets nothing load and only this page's own script run, so text of a data
    set cannot act even if an escape were forgotten.

    Args:
        template: Its file name.
        title: Of the page.
        scripts: Names of the scripts that the page holds; one named board.js may ask the page's own server.
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
    script = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in scripts)
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        own = "'self'" if "board.js" in scripts else "'none'"
        policy += (
            f"; img-src data:; script-src 'sha256-{digest}'; base-uri 'none'; form-action {own}; connect-src {own}"
        )
    environment.globals |= {"_": translate, "translated": translate, "localize": localize}
    chinese = current_language() == "zh"
    return environment.get_template(template).render(
        title=title,
        page_language="zh-CN" if chinese else "en",
        script_words=json.dumps({text: translate(text) for text in SCRIPT_WORDS}, ensure_ascii=False)
        if chinese and script
        else "",
        policy=policy,
        style=(TEMPLATES / "style.css").read_text(encoding="utf-8") + CHART_CSS,
        script=script,
        **context,
    )


SCRIPT_WORDS = (  # what the scripts write into a page
    message("show all"),
    message("{shown} of {all} rows"),
    message("{left} of {all} match"),
    message("copy"),
    message("copied"),
    message("selected"),
    message("Not refreshed: the board does not answer ({reason})."),
)


def drawing_html(chart: Chart) -> str:
    """The drawing without its style, which the page has once."""
    return chart.svg.replace(f"<style>{CHART_CSS}</style>", "")


def layout_runs(blocks: Sequence[Block]) -> Iterator[tuple[bool, list[Block]]]:
    """Blocks in their order, those that may stand side by side together: whether they may, and the blocks."""
    for narrow, run in itertools.groupby(blocks, is_narrow):
        yield narrow, list(run)


def is_narrow(block: Block) -> bool:
    """Whether a block is a chart, or a table no wider than one."""
    if isinstance(block, Matrix):
        return len(block.shown_labels or block.labels) <= NARROW_MATRIX
    if not isinstance(block, Table):
        return isinstance(block, Chart)
    lengths = [
        max(len(str(name)), *(narrowest(format_cell(row[at])) for row in block.rows), 0)
        for at, name in enumerate(block.columns)
    ]
    return sum(LETTER_PIXELS * length + CELL_PADDING_PIXELS for length in lengths) <= COLUMN_PIXELS


def narrowest(text: str) -> int:
    """The fewest characters that a line of a cell holds: those of its longest word, or of a few words."""
    return max(min(WRAPPED_TEXT, len(text)), *map(len, text.split()), 0)


@dataclass(frozen=True)
class MatrixRow:
    """A row of a matrix on the page: its label, how many rows are truly of it, and its cells with count and share."""

    label: str
    total: int
    cells: Sequence[tuple[int, str, float, bool]]  # count, share as text, share, whether on the diagonal


def matrix_rows(matrix: Matrix) -> list[MatrixRow]:
    """The rows of a matrix that the page shows."""
    places = matrix.shown_labels or range(len(matrix.labels))
    rows = []
    for true in places:
        total = sum(matrix.counts[true])
        shares = [(at, matrix.counts[true][at] / total if total else 0.0) for at in places]
        cells = [(matrix.counts[true][at], format_percent(share), share, at == true) for at, share in shares]
        rows.append(MatrixRow(str(matrix.labels[true]), total, cells))
    return rows


def describe_table(table: Table) -> str:
    """The caption of a table, and what the page leaves out of it."""
    lines = [table.caption] if table.caption else []
    if len(table.rows) > table.page_rows:
        lines.append(
            translate(
                "Here are the first {listed:,} of {count:,} [row|rows]; {name}.csv holds all.",
                listed=table.page_rows,
                count=len(table.rows),
                name=table.name,
            )
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


GROUPED_FROM = 10_000  # largest number of a column from which on all of it is written with commas


def grouped_columns(table: Table) -> list[bool]:
    """For each column, whether its whole numbers have commas: all of a column do, or none."""
    return [
        any(isinstance(value, int) and abs(value) >= GROUPED_FROM for value in column)
        for column in ([row[at] for row in table.rows] for at in range(len(table.columns)))
    ]


MARKDOWN_ROWS = 30  # of a table; its CSV file holds all
MARKDOWN_CELL_LENGTH = 120  # characters of a cell
MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")


def render_markdown(document: Document) -> str:
    """A document as Markdown."""
    lines = [f"# {escape_markdown(document.title)}", "", escape_markdown(document.subtitle), ""]
    for section in document.sections:
        lines += [f"## {escape_markdown(translate(section.title))}", ""]
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
        case Paragraph(text):
            yield escape_markdown(text)
        case Verdict(text, tone):
            yield f"**{translate(TONE_LABELS[tone])}** {escape_markdown(text)}"
        case Fold(_, blocks):
            for inner in blocks:
                yield from [*block_markdown(inner), ""]
        case Matrix():
            yield from table_markdown(block.as_table())
        case BulletList(lines):
            for line in lines:
                yield f"- **{translate(TONE_LABELS[line.tone])}** {escape_markdown(line.text)}"
        case Cards(cards):
            for card in cards:
                note = f" ({escape_markdown(card.note)})" if card.note else ""
                yield f"- {escape_markdown(card.name)}: **{escape_markdown(card.value)}**{note}"
        case Chart(name, _, words, title):
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
                for answer in sample.answers:
                    marked = [escape_markdown(text) if right else f"**{escape_markdown(text)}**"
                              for text, right in answer.pieces]  # fmt: skip
                    yield f"  - {escape_markdown(answer.name)}: {' '.join(filter(None, marked))}"


def table_markdown(grid: Table) -> Iterator[str]:
    """The first rows as Markdown, and the name of the file with the others."""
    yield from [escape_markdown(grid.caption), ""] if grid.caption else []
    yield "| " + " | ".join(escape_markdown(localize(name)) for name in grid.columns) + " |"
    yield "|" + "---|" * len(grid.columns)
    for row in grid.rows[:MARKDOWN_ROWS]:
        yield (
            "| "
            + " | ".join(escape_markdown(truncate(format_cell(value), MARKDOWN_CELL_LENGTH)) for value in row)
            + " |"
        )
    if len(grid.rows) > MARKDOWN_ROWS:
        yield from [
            "",
            translate(
                "The first {listed} of {count:,} [row|rows]; {name}.csv holds all.",
                listed=MARKDOWN_ROWS,
                count=len(grid.rows),
                name=grid.name,
            ),
        ]
