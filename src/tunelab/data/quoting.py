"""Whether the quotes of a CSV or TSV file group cells or are plain characters: settled by evidence.

A TSV with quotes may follow the CSV rules or mean its quotes as plain characters.  Taking the wrong reading is
silent: `csv` with its default settings swallows 430 of the 7 662 rows of the CompLex training set.  So a file is
read both ways, and where the readings differ `auto` takes the one that fits, or refuses to guess.
"""

import csv
import re
from dataclasses import dataclass, field

from tunelab.data.bad_rows import MOST_SKIPPED, Fault, excerpt, told
from tunelab.errors import DataError

WHOLE_CELL = re.compile(r'"(?:[^"]|"")*"')


@dataclass
class Reading:
    """A table as one way of quoting sees it.

    Attributes:
        quoted: Whether quotes group a cell, as in RFC 4180; else they are plain characters.
        cells: First line (from 1), last line and cells of every record, the header included.
        faults: First line and fault of everything that is no record.
        width: Cells in the header.
    """

    quoted: bool
    cells: list[tuple[int, int, list[str]]] = field(default_factory=list)
    faults: list[tuple[int, Fault]] = field(default_factory=list)
    width: int = 0

    def spoilt(self) -> int:
        """Lines that hold no record."""
        return sum(fault.lines for _, fault in self.faults)


def lines_of(text: str) -> list[str]:
    r"""Physical lines without their ends (\n, \r\n, or \r alone if the file has no \n)."""
    lines = text.split("\n") if "\n" in text else text.split("\r")
    return [line.removesuffix("\r") for line in lines]


def read_plain(lines: list[str], delimiter: str) -> Reading:
    """Each line is a record; quotes are characters like any other."""
    reading = Reading(quoted=False)
    for number, line in enumerate(lines, start=1):
        if line:
            reading.cells.append((number, number, line.split(delimiter)))
    return fit(reading, lines)


def read_quoted(lines: list[str], delimiter: str) -> Reading:
    """RFC 4180, strictly: a quote that closes too early or never is a fault, not a guess."""
    reading = Reading(quoted=True)
    source = csv.reader((line + "\n" for line in lines), delimiter=delimiter, strict=True)
    limit = csv.field_size_limit(2**31 - 1)  # of the whole process, so it is put back
    try:
        while True:
            first = source.line_num + 1
            try:
                cells = next(source)
            except csv.Error as error:
                last = max(first, source.line_num)
                message = f"{error}, in: {excerpt(lines[min(first, len(lines)) - 1])}"
                if last > first:
                    message += f" (a quote opened here is still open in line {last})"
                reading.faults.append((first, Fault(message, lines=last - first + 1)))
                continue
            except StopIteration:
                return fit(reading, lines)
            if cells:
                reading.cells.append((first, source.line_num, cells))
    finally:
        csv.field_size_limit(limit)


def fit(reading: Reading, lines: list[str]) -> Reading:
    """Turn records with more or fewer cells than the first one into faults."""
    reading.width = len(reading.cells[0][2]) if reading.cells else 0
    fitting = []
    for first, last, cells in reading.cells:
        if len(cells) == reading.width:
            fitting.append((first, last, cells))
        else:
            message = f"has {len(cells)} cells, the first line has {reading.width}: {excerpt(lines[first - 1])}"
            reading.faults.append((first, Fault(message, lines=last - first + 1)))
    reading.cells = fitting
    reading.faults.sort(key=lambda fault: fault[0])
    return reading


def swallowed(reading: Reading, lines: list[str], delimiter: str) -> tuple[int, int] | None:
    """First and last line of the first record that could as well be several: each of its lines is a full row."""
    for first, last, _ in reading.cells:
        if last > first and all(line.count(delimiter) == reading.width - 1 for line in lines[first - 1 : last]):
            return first, last
    return None


def told_joins(name: str, reading: Reading) -> str:
    """A note on the records that take several lines, so that a stray quote never joins rows unseen."""
    spans = [(first, last) for first, last, _ in reading.cells if last > first]
    if not spans:
        return ""
    return f"{name}: quotes join several lines in {len(spans)} record(s), first in lines {spans[0][0]} to {spans[0][1]}"


def wraps(reading: Reading) -> bool:
    """Whether a plain reading shows the hand of a program that quotes: a header in quotes, or a doubled quote."""
    records = [cells for _, _, cells in reading.cells]
    header_in_quotes = any(WHOLE_CELL.fullmatch(cell) for cells in records[:1] for cell in cells)
    return header_in_quotes or any('""' in c[1:-1] and WHOLE_CELL.fullmatch(c) for cells in records for c in cells)


def choose(name: str, lines: list[str], delimiter: str, *, on_bad: str) -> tuple[Reading, str]:
    """The reading that fits the file, and a note where quotes are taken as plain characters.

    A reading fits if it has no faults (with on_bad=skip: at most 1 % of the lines).  Plain is only ever taken for
    a TSV: it loses no line, as a text there cannot hold the delimiter.

    1. Quoting fits: quoted, unless the TSV also fits plain and either quotes would join lines that are full rows
       by themselves, or a bare cell holds a quote, which a program that quotes would have wrapped.
    2. Quoting does not fit, the TSV fits plain: plain, unless it has doubled quotes in a quoted cell or a header in
       quotes, which only a program that quotes writes.
    3. Refused: both readings fit the whole file but differ in their rows and rule 1 does not settle it; or none fits.

    Raises:
        DataError: If no reading is safe; names the lines and both ways out.
    """
    if not any('"' in line for line in lines):
        return read_plain(lines, delimiter), ""
    quoted, plain = read_quoted(lines, delimiter), read_plain(lines, delimiter)
    allowed = len(lines) * MOST_SKIPPED if on_bad == "skip" else 0
    quoted_fits, plain_fits = quoted.spoilt() <= allowed, plain.spoilt() <= allowed
    if quoted_fits and plain_fits and bool(quoted.faults) != bool(plain.faults):
        quoted_fits, plain_fits = not quoted.faults, not plain.faults  # a reading without faults beats one with
    may_be_plain = plain_fits and delimiter == "\t" and plain.width > 1 and not wraps(plain)
    note = f"{name}: quotes are read as plain characters, since quoting does not fit; data.quoting=minimal forces it"
    if quoted_fits:
        joined = swallowed(quoted, lines, delimiter)
        bare = any('"' in c and not c.startswith('"') for _, _, cells in plain.cells for c in cells)
        if may_be_plain and (joined or bare):
            return plain, note
        if not joined or not plain_fits:  # where quotes must group cells elsewhere in the file, they do here too
            return quoted, told_joins(name, quoted)
        raise DataError(
            f"{name} lines {joined[0]} to {joined[1]} are one record if quotes count, {joined[1] - joined[0] + 1} if "
            f"they are plain characters; set data.quoting=minimal for one, data.quoting=none for several"
        )
    if may_be_plain:
        return plain, note
    faults = told([f"{name} line {number}: {fault.message}" for number, fault in quoted.faults])
    advice = "data.quoting=none reads every line as it stands, quotes included" if plain_fits else "mend the lines"
    raise DataError(f"{faults}\n{advice}, or let data.on_bad=skip leave out up to {MOST_SKIPPED:.0%} of the lines")
