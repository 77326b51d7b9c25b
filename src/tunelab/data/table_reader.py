"""CSV and TSV: every cell is text, as written, and every row has as many cells as the header.

A TSV with quotes may follow the CSV rules or mean its quotes as plain characters.  Taking the wrong reading is
silent: `csv` with its default settings swallows 430 of the 7 662 rows of the CompLex training set.  So a file is
read both ways, and where the readings differ `auto` takes the one that fits, or refuses to guess.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from tunelab.data.bad_rows import (
    CLEAN_ADVICE,
    CONTROL_CHARS,
    MAX_LISTED,
    MAX_SKIPPED_SHARE,
    RowFault,
    RowOutcome,
    excerpt,
    summarize_messages,
)
from tunelab.data.json_reader import exceeds_bytes
from tunelab.errors import DataError
from tunelab.language.translation import translate

QUOTED_CELL = re.compile(r'"(?:[^"]|"")*"')


class TableRecord(NamedTuple):
    """One record of a table, or what stands in its place.

    Attributes:
        first, last: Its lines, from 1.
        cells: Its cells; or why it is no record.
        lines: The physical lines it was read from.
        width: Cells of the first record of the file.
    """

    first: int
    last: int
    cells: list[str] | RowFault
    lines: list[str]
    width: int


TableParser = Callable[[Iterable[str], str], Iterator[TableRecord]]


def parse_unquoted(lines: Iterable[str], delimiter: str) -> Iterator[TableRecord]:
    """Each line is a record; quotes are characters like any other."""
    width = 0
    for number, line in enumerate(lines, start=1):
        if line:
            cells = line.split(delimiter)
            width = width or len(cells)
            yield check_width(TableRecord(number, number, cells, [line], width))


def parse_quoted(lines: Iterable[str], delimiter: str) -> Iterator[TableRecord]:
    """RFC 4180, strictly: a quote that closes too early or never is a fault, not a guess."""
    taken: list[str] = []

    def fed() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line + "\n"

    source = csv.reader(fed(), delimiter=delimiter, strict=True)
    width, before = 0, ""
    while True:
        first, span = source.line_num + 1, None
        limit = csv.field_size_limit(2**31 - 1)  # of the whole process, so it is put back
        try:
            cells = next(source)
        except csv.Error as error:
            last = max(first, source.line_num)
            message = translate("{error}, in: {taken}", error=error, taken=excerpt(taken[0] if taken else before))
            if last > first:
                message += translate(" (a quote opened here is still open in line {last})", last=last)
            span = TableRecord(first, last, RowFault(message, lines_lost=last - first + 1), list(taken), width)
        except StopIteration:
            return
        else:
            if cells:
                width = width or len(cells)
                span = check_width(TableRecord(first, source.line_num, cells, list(taken), width))
        finally:
            csv.field_size_limit(limit)
        if span:
            yield span
        before = taken[-1] if taken else before
        taken.clear()


def check_width(span: TableRecord) -> TableRecord:
    """The record, or a fault where it has more or fewer cells than the first one."""
    if isinstance(span.cells, RowFault) or len(span.cells) == span.width:
        return span
    message = translate(
        "has {count} [cell|cells], the first line has {width}: {lines}",
        count=len(span.cells),
        width=span.width,
        lines=excerpt(span.lines[0]),
    )
    return span._replace(cells=RowFault(message, lines_lost=span.last - span.first + 1))


@dataclass
class ParseSurvey:
    """Facts about one way to parse a whole file; no row is kept.

    Attributes:
        bad_lines: Lines that hold no record.
        faults: What the first faults say, with their lines; `fault_count` counts all.
        width: Cells in the header.
        multiline: Records that take several lines, and the lines of the first such.
        suspect_multiline: Lines of the first record that could as well be several: each of its lines is a full row.
        has_bare_quotes: Whether a cell holds a quote but does not start with one.
        has_quoted_cells: Whether cells show the hand of a program that quotes: a header in quotes, or a doubled quote.
    """

    bad_lines: int = 0
    faults: list[tuple[int, str]] = field(default_factory=list)
    fault_count: int = 0
    width: int = 0
    multiline: tuple[int, tuple[int, int]] | None = None
    suspect_multiline: tuple[int, int] | None = None
    has_bare_quotes: bool = False
    has_quoted_cells: bool = False


def survey_records(spans: Iterable[TableRecord], delimiter: str) -> ParseSurvey:
    """Parse a whole file and count what decides between ways to parse it."""
    survey, header = ParseSurvey(), True
    for first, last, cells, lines, width in spans:
        survey.width = width
        if isinstance(cells, RowFault):
            survey.bad_lines += cells.lines_lost
            survey.fault_count += 1
            if len(survey.faults) < MAX_LISTED:
                survey.faults.append((first, cells.message))
            continue
        if last > first:
            survey.multiline = (
                (survey.multiline[0] + 1, survey.multiline[1]) if survey.multiline else (1, (first, last))
            )
            if not survey.suspect_multiline and all(line.count(delimiter) == width - 1 for line in lines):
                survey.suspect_multiline = first, last
        for cell in cells:
            if '"' in cell:
                survey.has_bare_quotes = survey.has_bare_quotes or not cell.startswith('"')
                if not survey.has_quoted_cells and (header or '""' in cell[1:-1]):
                    survey.has_quoted_cells = QUOTED_CELL.fullmatch(cell) is not None
        header = False
    return survey


def choose_quoting(name: str, lines: Iterable[str], delimiter: str, *, on_bad: str) -> tuple[TableParser, str]:
    """The reading that fits the file, and a note where quotes are taken as plain characters or join lines.

    A reading fits if it has no faults (with on_bad=skip: at most 1 % of the lines).  Plain is only ever taken for
    a TSV: it loses no line, as a text there cannot hold the delimiter.

    1. Quoting fits: quoted, unless the TSV also fits plain and either quotes would join lines that are full rows
       by themselves, or a bare cell holds a quote, which a program that quotes would have wrapped.
    2. Quoting does not fit, the TSV fits plain: plain, unless it has doubled quotes in a quoted cell or a header in
       quotes, which only a program that quotes writes.
    3. Refused: both readings fit the whole file but differ in their rows and rule 1 does not settle it; or none fits.

    Args:
        name: The file, as messages name it.
        lines: Its lines; gone through several times.
        delimiter: What stands between cells.
        on_bad: As in `read_records`.

    Raises:
        DataError: If no reading is safe; names the lines and both ways out.
    """
    count, marked = 0, False
    for line in lines:
        count += 1
        marked = marked or '"' in line
    if not marked:
        return parse_unquoted, ""
    quoted, plain = (survey_records(read(lines, delimiter), delimiter) for read in (parse_quoted, parse_unquoted))
    allowed = count * MAX_SKIPPED_SHARE if on_bad == "skip" else 0
    quoted_fits, plain_fits = quoted.bad_lines <= allowed, plain.bad_lines <= allowed
    if quoted_fits and plain_fits and bool(quoted.fault_count) != bool(plain.fault_count):
        quoted_fits, plain_fits = (
            not quoted.fault_count,
            not plain.fault_count,
        )  # a reading without faults beats one with
    may_be_plain = plain_fits and delimiter == "\t" and plain.width > 1 and not plain.has_quoted_cells
    note = translate(
        "{name}: quotes are read as plain characters, since quoting does not fit; data.quoting=minimal forces it",
        name=name,
    )
    if quoted_fits:
        joined = quoted.suspect_multiline
        if may_be_plain and (joined or plain.has_bare_quotes):
            return parse_unquoted, note
        if not joined or not plain_fits:  # where quotes must group cells elsewhere in the file, they do here too
            return parse_quoted, multiline_note(name, quoted)
        raise DataError(
            translate(
                "{name} lines {first} to {last} are one record if quotes count, {count} if "
                "they are plain characters; set data.quoting=minimal for one, data.quoting=none for "
                "several",
                name=name,
                first=joined[0],
                last=joined[1],
                count=joined[1] - joined[0] + 1,
            )
        )
    if may_be_plain:
        return parse_unquoted, note
    faults = summarize_messages(
        [
            translate("{name} line {number}: {message}", name=name, number=number, message=message)
            for number, message in quoted.faults
        ],
        quoted.fault_count,
    )
    advice = (
        translate("data.quoting=none reads every line as it stands, quotes included")
        if plain_fits
        else translate("mend the lines")
    )
    raise DataError(
        translate(
            "{faults}\n{advice}, or let data.on_bad=skip leave out up to {max_skipped_share:.0%} of the lines",
            faults=faults,
            advice=advice,
            max_skipped_share=MAX_SKIPPED_SHARE,
        )
    )


def multiline_note(name: str, survey: ParseSurvey) -> str:
    """A note on the records that take several lines, so that a stray quote never joins rows unseen."""
    if not survey.multiline:
        return ""
    count, (first, last) = survey.multiline
    return translate(
        "{name}: quotes join several lines in {count} record(s), first in lines {first} to {last}",
        name=name,
        count=count,
        first=first,
        last=last,
    )


def read_table(
    name: str,
    lines: Iterable[str],
    delimiter: str,
    *,
    quoting: str,
    header: Sequence[str] | None,
    on_bad: str,
    max_line_bytes: int,
) -> tuple[Iterator[RowOutcome], list[str]]:
    """Rows of a CSV or TSV file with the line each starts on, and notes on how it was read.

    Args:
        name: The file, as messages name it.
        lines: Its lines without their ends; gone through several times.
        delimiter: What stands between cells.
        quoting: "minimal" (RFC 4180), "none" (quotes are plain characters) or "auto" (see `choose_quoting`).
        header: Column names of a file whose first line is already a record; None where the first line names them.
        on_bad: As in `read_records`.
        max_line_bytes: Longest record, in bytes of UTF-8.

    Raises:
        DataError: If the quoting cannot be settled; and while rows are taken, if the header cannot be used.
    """
    reading: TableParser = parse_quoted if quoting == "minimal" else parse_unquoted
    note = ""
    if quoting == "auto":
        reading, note = choose_quoting(name, lines, delimiter, on_bad=on_bad)
    rows = rows_of_table(name, reading(lines, delimiter), header, max_line_bytes, clean=on_bad == "clean")
    return rows, [note] if note else []


def rows_of_table(
    name: str, spans: Iterator[TableRecord], header: Sequence[str] | None, max_line_bytes: int, *, clean: bool
) -> Iterator[RowOutcome]:
    """Each record as a row under its column names, or what is wrong with it; `clean` lets control characters pass."""
    early: list[tuple[int, RowFault]] = []
    names: list[str] = []
    for span in spans:
        if isinstance(span.cells, RowFault):
            early.append((span.first, span.cells))
            continue
        names = check_header(name, span, span.cells, header, early)
        spans = spans if header is None else chain([span], spans)
        break
    yield from early
    for first, _, cells, *_ in spans:
        if isinstance(cells, RowFault):
            yield first, cells
        elif not clean and (fault := control_char_fault(names, cells)):
            yield first, fault
        elif exceeds_bytes("".join(cells), max_line_bytes):
            limit = f"data.max_line_bytes={max_line_bytes}"
            yield first, RowFault(translate("longer than {limit}; cut the record, or raise the limit", limit=limit))
        else:
            yield first, dict(zip(names, cells, strict=True))


def control_char_fault(names: Sequence[str], cells: Sequence[str]) -> RowFault | None:
    """What is wrong with a row of which a cell holds a control character; None where none does."""
    for column, cell in zip(names, cells, strict=True):
        if not cell.isprintable() and (bad := CONTROL_CHARS.search(cell)):
            char = f"U+{ord(bad[0]):04X}"
            return RowFault(
                translate(
                    "column {column!r} holds a control character or an undecodable one ({char}), in: "
                    "{cell}; {clean_advice}",
                    column=column,
                    char=char,
                    cell=excerpt(cell, bad.start() + 1),
                    clean_advice=CLEAN_ADVICE,
                )
            )
    return None


def check_header(
    name: str, span: TableRecord, cells: list[str], header: Sequence[str] | None, early: list[tuple[int, RowFault]]
) -> list[str]:
    """Column names: of the first record, or as they were given."""
    first = span.first
    if early and header is None:
        raise DataError(
            translate(
                "{name} line {early}: the header itself cannot be read: {message}",
                name=name,
                early=early[0][0],
                message=early[0][1].message,
            )
        )
    names = cells if header is None else list(header)
    if any(CONTROL_CHARS.search(column) for column in names):
        raise DataError(
            translate(
                "{name} line {first}: a column name holds a control or undecodable character; rename it",
                name=name,
                first=first,
            )
        )
    if len(names) != span.width:
        raise DataError(
            translate(
                "{name} line {first} has {width} [cell|cells], data.header names {count} ({names}); name each "
                "column once",
                name=name,
                first=first,
                width=span.width,
                count=len(names),
                names=", ".join(names),
            )
        )
    twice = sorted({column for column in names if names.count(column) > 1})
    if twice:
        raise DataError(
            translate(
                "{name} line {first}: column {names} stands twice in the header; rename one. A file "
                "without a header needs data.header=[...]",
                name=name,
                first=first,
                names=", ".join(map(repr, twice)),
            )
        )
    if header is not None and cells == names:
        raise DataError(
            translate(
                "{name} line {first} is itself the header {names}; leave data.header out",
                name=name,
                first=first,
                names=", ".join(cells),
            )
        )
    return names
