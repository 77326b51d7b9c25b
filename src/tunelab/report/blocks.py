"""What a report is made of, before it is HTML, Markdown or CSV: values in dataclasses, no markup."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Value = str | int | float | None  # a cell; None and nan are shown as a dash
Tone = Literal["plain", "soft", "good", "warn", "bad"]
MARKS: dict[Tone, str] = {"plain": "", "soft": "", "good": "ok", "warn": "look", "bad": "fault"}


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Verdicts:
    """Sentences that judge, each with its tone."""

    lines: Sequence[Words]


@dataclass(frozen=True)
class Card:
    """One number that stands out: what it is, the number, and a few words below it."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Cards:
    """Numbers side by side."""

    cards: Sequence[Card]


@dataclass(frozen=True)
class Chart:
    """A drawing of `tunelab.charts`.

    Attributes:
        name: Of its file beside the Markdown, without an ending.
        svg: The drawing.
        words: What to read in it.
        title: What it shows, for readers without it.
        wide: Whether it takes the whole width of the page.
    """

    name: str
    svg: str
    words: str = ""
    title: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Grid:
    """A table that can be sorted and filtered, and is a CSV file too.

    Attributes:
        name: Of its file, without an ending.
        columns: What each column is.
        rows: Cells as values, not as text, so that they sort and count.
        words: What the table holds.
        most: Rows on the page; the file holds all.
        keys: What belongs to each row in drawings, such as its trial; empty or as many as `rows`.
        strong: Places of rows that stand out.
    """

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    words: str = ""
    most: int = 250
    keys: Sequence[str] = ()
    strong: frozenset[int] = field(default=frozenset())

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"table {self.name!r} has rows of another length than its {len(self.columns)} columns")


@dataclass(frozen=True)
class Command:
    """A command to paste, and what it does."""

    text: str
    words: str = ""


@dataclass(frozen=True)
class Sample:
    """One record: a title, its parts by name, and whether it went well."""

    title: str
    parts: Sequence[tuple[str, str]]
    tone: Tone = "plain"


@dataclass(frozen=True)
class Samples:
    """Records to read."""

    name: str
    samples: Sequence[Sample]
    words: str = ""


Block = Words | Verdicts | Cards | Chart | Grid | Command | Samples


@dataclass(frozen=True)
class Section:
    """Blocks under a title; `lead` says why one should read it."""

    title: str
    blocks: Sequence[Block]
    lead: str = ""


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    subtitle: str
    sections: Sequence[Section]

    def grids(self) -> list[Grid]:
        """Every table, in order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Grid)]

    def charts(self) -> list[Chart]:
        """Every drawing, in order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Chart)]
