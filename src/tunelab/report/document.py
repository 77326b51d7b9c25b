"""The blocks of a report, without markup: paragraphs, tables, charts, sections, documents."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from tunelab.language.translation import message, translate

CellValue = str | int | float | None  # a cell; None and nan are shown as a dash
Tone = Literal["plain", "soft", "lead", "good", "warn", "bad"]
TONE_LABELS: dict[Tone, str] = {  # the one scale of every badge
    "plain": message("note"),
    "soft": message("note"),
    "lead": message("note"),
    "good": message("good"),
    "warn": message("warning"),
    "bad": message("problem"),
}
SECTION_TITLES = (  # those of this package, which a page translates
    *(message("Verdict"), message("Curves"), message("Scores"), message("Classes"), message("Answers")),
    *(message("Predicted numbers"), message("Worst errors"), message("Calibration"), message("Doctor")),
    *(message("Data"), message("Provenance"), message("Summary"), message("Effect of each setting")),
    *(message("Importance"), message("What to run next"), message("Ranks"), message("History"), message("Checks")),
    *(message("Time and cost"), message("Trials"), message("Settings"), message("Rows on which they differ")),
)


@dataclass(frozen=True)
class Paragraph:
    """A paragraph with its tone, and the title of the section that holds more on it."""

    text: str
    tone: Tone = "plain"
    section: str = ""


@dataclass(frozen=True)
class BulletList:
    """Verdicts as a list, each with its tone."""

    lines: Sequence[Paragraph]


@dataclass(frozen=True)
class Verdict:
    """The answer to the first question of a reader, large, with its tone."""

    text: str
    tone: Tone


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
    """

    name: str
    svg: str
    caption: str = ""
    title: str = ""


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
class Matrix:
    """Counts of true against predicted labels: one matrix with count and share in each cell, its diagonal marked.

    Attributes:
        name: Of its file, without an ending.
        labels: Of rows and columns.
        counts: A row for each true label, a column for each predicted one.
        caption: What to read in it.
        shown_labels: Places of the labels on the page, in their order; the file holds all.
    """

    name: str
    labels: Sequence[str]
    counts: Sequence[Sequence[int]]
    caption: str = ""
    shown_labels: Sequence[int] = ()

    def as_table(self) -> Table:
        """The counts as a table, a row for each true label."""
        rows: list[list[CellValue]] = [[name, *row] for name, row in zip(self.labels, self.counts, strict=True)]
        return Table(self.name, ["true", *self.labels], rows, self.caption)


@dataclass(frozen=True)
class Command:
    """A command to paste, and its description."""

    text: str
    description: str = ""


@dataclass(frozen=True)
class Answer:
    """One of several answers to a question: whose it is, and its text in pieces, each with whether it is right."""

    name: str
    pieces: Sequence[tuple[str, bool]]

    @property
    def text(self) -> str:
        """The text, without marks."""
        return "".join(text for text, _ in self.pieces)


@dataclass(frozen=True)
class Example:
    """One record: a title, its fields by name, a tone, and answers to set side by side."""

    title: str
    fields: Sequence[tuple[str, str]]
    tone: Tone = "plain"
    answers: Sequence[Answer] = ()


@dataclass(frozen=True)
class Examples:
    """Records to read."""

    name: str
    examples: Sequence[Example]
    introduction: str = ""


@dataclass(frozen=True)
class Fold:
    """Blocks that the page shows when their summary is clicked; paper and Markdown show them."""

    summary: str
    blocks: "Sequence[Block]"


Block = Paragraph | BulletList | Verdict | Cards | Chart | Table | Matrix | Command | Examples | Fold


def walk_blocks(blocks: Sequence[Block]) -> Iterator[Block]:
    """Every block in order, those in folds too."""
    for block in blocks:
        if isinstance(block, Fold):
            yield from walk_blocks(block.blocks)
        else:
            yield block


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

    def walk(self) -> Iterator[Block]:
        """Every block in order, those in folds too."""
        for section in self.sections:
            yield from walk_blocks(section.blocks)

    def tables(self) -> list[Table]:
        """Every table, in order; matrices as tables."""
        tables = [block.as_table() if isinstance(block, Matrix) else block for block in self.walk()]
        return [block for block in tables if isinstance(block, Table)]

    def charts(self) -> list[Chart]:
        """Every chart, in order."""
        return [block for block in self.walk() if isinstance(block, Chart)]


Source = TypeVar("Source")
CONTENT_ERRORS = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError)


def build_section(title: str, part: Callable[[Source], Section | list[Section]], facts: Source) -> list[Section]:
    """The sections of one part; if a file has unexpected content, one section that says so."""
    try:
        sections = part(facts)
    except CONTENT_ERRORS as fault:
        words = translate(
            "This part cannot be shown: a file has unexpected content ({kind}: {fault}).",
            kind=type(fault).__name__,
            fault=fault,
        )
        return [Section(title, [Paragraph(words, "bad")])]
    return sections if isinstance(sections, list) else [sections]


LIFTED_TONES = ("bad", "warn")  # lines of these tones stand at the top of the page, and nowhere else


def lift_warnings(sections: list[Section]) -> list[Section]:
    """Sections with every warning and problem of theirs in the list of the first one, and what led to it below."""
    lifted: list[Paragraph] = []
    rest: list[Section] = []
    for section in sections[1:]:
        blocks: list[Block] = []
        for block in section.blocks:
            if not isinstance(block, BulletList):
                blocks.append(block)
                continue
            grave = [line for line in block.lines if line.tone in LIFTED_TONES]
            lifted += [replace(line, section=line.section or section.title) for line in grave]
            kept = [line for line in block.lines if line.tone not in LIFTED_TONES]
            blocks += [BulletList(kept)] if kept else []
        rest += [replace(section, blocks=blocks)] if blocks else []
    titles = {section.title for section in rest}
    first = [
        BulletList([
            replace(line, section=line.section if line.section in titles else "")
            for line in warnings_first([*block.lines, *lifted])
        ])
        if isinstance(block, BulletList)
        else block
        for block in sections[0].blocks
    ]  # fmt: skip
    if lifted and not any(isinstance(block, BulletList) for block in first):
        first.append(BulletList(warnings_first(lifted)))
    full = [block for block in first if not isinstance(block, BulletList) or block.lines]
    return [replace(sections[0], blocks=full), *rest]


def warnings_first(lines: Sequence[Paragraph]) -> list[Paragraph]:
    """Lines ordered by how grave they are."""
    order: list[Tone] = ["bad", "warn", "lead", "plain", "soft", "good"]
    return sorted(lines, key=lambda line: order.index(line.tone))
