"""The blocks of a report, without markup: paragraphs, tables, charts, sections, documents."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

CellValue = str | int | float | None  # a cell; None and nan are shown as a dash
Tone = Literal["plain", "soft", "good", "warn", "bad"]
TONE_LABELS: dict[Tone, str] = {"plain": "", "soft": "", "good": "ok", "warn": "look", "bad": "fault"}


@dataclass(frozen=True)
class Paragraph:
    """A paragraph with its tone."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class BulletList:
    """Verdicts as a list, each with its tone."""

    lines: Sequence[Paragraph]


@dataclass(frozen=True)
class Card:
    """One headline number: its name, its value, and a note below it."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Cards:
    """Headline numbers side by side."""

    cards: Sequence[Card]


@dataclass(frozen=True)
class Chart:
    """A chart of `tunelab.report.charts`.

    Attributes:
        name: Of its file beside the Markdown, without an ending.
        svg: The drawing.
        caption: What to read in it.
        title: What it shows, for readers without it.
        full_width: Whether it takes the whole width of the page.
    """

    name: str
    svg: str
    caption: str = ""
    title: str = ""
    full_width: bool = False


@dataclass(frozen=True)
class Table:
    """A table that sorts and filters on the page and is a CSV file too.

    Attributes:
        name: Of its file, without an ending.
        columns: What each column is.
        rows: Cells as values, not as text, so that they sort and count.
        caption: What the table holds.
        page_rows: Rows on the page; the file holds all.
        row_keys: What belongs to each row in drawings, such as its trial; empty or as many as `rows`.
        highlighted_rows: Places of rows that stand out.
    """

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[CellValue]]
    caption: str = ""
    page_rows: int = 250
    row_keys: Sequence[str] = ()
    highlighted_rows: frozenset[int] = field(default=frozenset())

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"table {self.name!r} has rows of another length than its {len(self.columns)} columns")


@dataclass(frozen=True)
class Command:
    """A command to paste, and its description."""

    text: str
    description: str = ""


@dataclass(frozen=True)
class Example:
    """One record: a title, its fields by name, and a tone."""

    title: str
    fields: Sequence[tuple[str, str]]
    tone: Tone = "plain"


@dataclass(frozen=True)
class Examples:
    """Records to read."""

    name: str
    examples: Sequence[Example]
    introduction: str = ""


Block = Paragraph | BulletList | Cards | Chart | Table | Command | Examples


@dataclass(frozen=True)
class Section:
    """Blocks under a title; `introduction` says why one should read it."""

    title: str
    blocks: Sequence[Block]
    introduction: str = ""


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    subtitle: str
    sections: Sequence[Section]

    def tables(self) -> list[Table]:
        """Every table, in order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Table)]

    def charts(self) -> list[Chart]:
        """Every chart, in order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Chart)]


Source = TypeVar("Source")
CONTENT_ERRORS = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError)


def build_section(title: str, part: Callable[[Source], Section | list[Section]], facts: Source) -> list[Section]:
    """The sections of one part; if a file has unexpected content, one section that says so."""
    try:
        sections = part(facts)
    except CONTENT_ERRORS as fault:
        words = f"This part cannot be shown: a file has unexpected content ({type(fault).__name__}: {fault})."
        return [Section(title, [Paragraph(words, "bad")])]
    return sections if isinstance(sections, list) else [sections]
