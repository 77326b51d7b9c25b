"""A document as Markdown: the same facts, drawings as files beside it.  Pure."""

import re
from collections.abc import Iterator

from tunelab.report.blocks import MARKS, Block, Cards, Chart, Command, Document, Grid, Samples, Verdicts, Words
from tunelab.report.words import shortened, shown

ROWS = 30  # of a table; its CSV file holds all
TEXT = 120  # characters of a cell
SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")


def markdown(document: Document) -> str:
    """The whole text."""
    lines = [f"# {plain(document.title)}", "", plain(document.subtitle), ""]
    for section in document.sections:
        lines += [f"## {plain(section.title)}", ""]
        lines += [plain(section.lead), ""] if section.lead else []
        for block in section.blocks:
            lines += [*block_markdown(block), ""]
    return "\n".join(lines)


def plain(text: str) -> str:
    """Text that Markdown and HTML leave alone, on one line."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def block_markdown(block: Block) -> Iterator[str]:
    """One block as lines."""
    match block:
        case Words(text, _):
            yield plain(text)
        case Verdicts(lines):
            for line in lines:
                mark = MARKS[line.tone]
                yield f"- **{mark}** {plain(line.text)}" if mark else f"- {plain(line.text)}"
        case Cards(cards):
            for card in cards:
                note = f" ({plain(card.note)})" if card.note else ""
                yield f"- {plain(card.name)}: **{plain(card.value)}**{note}"
        case Chart(name, _, words, title, _):
            yield f"![{plain(title)}](figures/{name}.svg)"
            yield from ["", plain(words)] if words else []
        case Grid():
            yield from table(block)
        case Command(text, words):
            yield from [plain(words), ""] if words else []
            fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 3)
            yield from [fence if fence != "```" else "```sh", text, fence]
        case Samples(_, samples, words):
            yield from [plain(words), ""] if words else []
            for sample in samples:
                yield f"- {plain(sample.title)}"
                yield from (f"  - {plain(name)}: {plain(shortened(text))}" for name, text in sample.parts)


def table(grid: Grid) -> Iterator[str]:
    """The first rows, and where the others are."""
    yield from [plain(grid.words), ""] if grid.words else []
    yield "| " + " | ".join(map(plain, grid.columns)) + " |"
    yield "|" + "---|" * len(grid.columns)
    for row in grid.rows[:ROWS]:
        yield "| " + " | ".join(plain(shortened(shown(value), TEXT)) for value in row) + " |"
    if len(grid.rows) > ROWS:
        yield from ["", f"The first {ROWS} of {len(grid.rows):,} rows; {grid.name}.csv holds all."]
