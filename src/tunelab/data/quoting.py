"""Whether the quotes of a CSV or TSV file group cells or are plain characters: settled by evidence.

A TSV with quotes may follow the CSV rules or mean its quotes as plain characters.  Taking the wrong reading is
silent: `csv` with its default settings swallows 430 of the 7 662 rows of the CompLex training set.  So a file is
read both ways, and where the readings differ `auto` takes the one that fits, or refuses to guess.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from tunelab.data.bad_rows import MOST_SKIPPED, SHOWN, Fault, excerpt, told
from tunelab.errors import DataError

WHOLE_CELL = re.compile(r'"(?:[^"]|"")*"')


class Span(NamedTuple):
    """One record of a table, or what stands in its place.

    Attributes:
        first, last: Its lines, from 1.
        cells: Its cells; or why it is no record.
        lines: The physical lines it was read from.
        width: Cells of the first record of the file.
    """

    first: int
    last: int
    cells: list[str] | Fault
    lines: list[str]
    width: int


Reading = Callable[[Iterable[str], str], Iterator[Span]]


def read_plain(lines: Iterable[str], delimiter: str) -> Iterator[Span]:
    """Each line is a record; quotes are characters like any other."""
    width = 0
    for number, line in enumerate(lines, start=1):
        if line:
            cells = line.split(delimiter)
            width = width or len(cells)
            yield fitted(Span(number, number, cells, [line], width))


def read_quoted(lines: Iterable[str], delimiter: str) -> Iterator[Span]:
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
            message = f"{error}, in: {excerpt(taken[0] if taken else before)}"
            if last > first:
                message += f" (a quote opened here is still open in line {last})"
            span = Span(first, last, Fault(message, lines=last - first + 1), list(taken), width)
        except StopIteration:
            return
        else:
            if cells:
                width = width or len(cells)
                span = fitted(Span(first, source.line_num, cells, list(taken), width))
        finally:
            csv.field_size_limit(limit)
        if span:
            yield span
        before = taken[-1] if taken else before
        taken.clear()


def fitted(span: Span) -> Span:
    """The record, or a fault where it has more or fewer cells than the first one."""
    if isinstance(span.cells, Fault) or len(span.cells) == span.width:
        return span
    message = f"has {len(span.cells)} cells, the first line has {span.width}: {excerpt(span.lines[0])}"
    return span._replace(cells=Fault(message, lines=span.last - span.first + 1))


@dataclass
class Survey:
    """What one reading of a whole file found; no row is kept.

    Attributes:
        spoilt: Lines that hold no record.
        faults: What the first faults say, with their lines; `faulty` counts all.
        width: Cells in the header.
        joins: Records that take several lines, and the lines of the first such.
        swallowed: Lines of the first record that could as well be several: each of its lines is a full row.
        bare: Whether a cell holds a quote but does not start with one.
        wraps: Whether cells show the hand of a program that quotes: a header in quotes, or a doubled quote.
    """

    spoilt: int = 0
    faults: list[tuple[int, str]] = field(default_factory=list)
    faulty: int = 0
    width: int = 0
    joins: tuple[int, tuple[int, int]] | None = None
    swallowed: tuple[int, int] | None = None
    bare: bool = False
    wraps: bool = False


def survey(spans: Iterable[Span], delimiter: str) -> Survey:
    """Read a whole file and keep what decides between readings."""
    found, header = Survey(), True
    for first, last, cells, lines, width in spans:
        found.width = width
        if isinstance(cells, Fault):
            found.spoilt += cells.lines
            found.faulty += 1
            if len(found.faults) < SHOWN:
                found.faults.append((first, cells.message))
            continue
        if last > first:
            found.joins = (found.joins[0] + 1, found.joins[1]) if found.joins else (1, (first, last))
            if not found.swallowed and all(line.count(delimiter) == width - 1 for line in lines):
                found.swallowed = first, last
        for cell in cells:
            if '"' in cell:
                found.bare = found.bare or not cell.startswith('"')
                if not found.wraps and (header or '""' in cell[1:-1]):
                    found.wraps = WHOLE_CELL.fullmatch(cell) is not None
        header = False
    return found


def choose(name: str, lines: Iterable[str], delimiter: str, *, on_bad: str) -> tuple[Reading, str]:
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
        return read_plain, ""
    quoted, plain = (survey(read(lines, delimiter), delimiter) for read in (read_quoted, read_plain))
    allowed = count * MOST_SKIPPED if on_bad == "skip" else 0
    quoted_fits, plain_fits = quoted.spoilt <= allowed, plain.spoilt <= allowed
    if quoted_fits and plain_fits and bool(quoted.faulty) != bool(plain.faulty):
        quoted_fits, plain_fits = not quoted.faulty, not plain.faulty  # a reading without faults beats one with
    may_be_plain = plain_fits and delimiter == "\t" and plain.width > 1 and not plain.wraps
    note = f"{name}: quotes are read as plain characters, since quoting does not fit; data.quoting=minimal forces it"
    if quoted_fits:
        joined = quoted.swallowed
        if may_be_plain and (joined or plain.bare):
            return read_plain, note
        if not joined or not plain_fits:  # where quotes must group cells elsewhere in the file, they do here too
            return read_quoted, told_joins(name, quoted)
        raise DataError(
            f"{name} lines {joined[0]} to {joined[1]} are one record if quotes count, {joined[1] - joined[0] + 1} if "
            f"they are plain characters; set data.quoting=minimal for one, data.quoting=none for several"
        )
    if may_be_plain:
        return read_plain, note
    faults = told([f"{name} line {number}: {message}" for number, message in quoted.faults], quoted.faulty)
    advice = "data.quoting=none reads every line as it stands, quotes included" if plain_fits else "mend the lines"
    raise DataError(f"{faults}\n{advice}, or let data.on_bad=skip leave out up to {MOST_SKIPPED:.0%} of the lines")


def told_joins(name: str, found: Survey) -> str:
    """A note on the records that take several lines, so that a stray quote never joins rows unseen."""
    if not found.joins:
        return ""
    count, (first, last) = found.joins
    return f"{name}: quotes join several lines in {count} record(s), first in lines {first} to {last}"
