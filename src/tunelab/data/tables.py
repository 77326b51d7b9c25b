"""CSV and TSV: every cell is text, as written, and every row has as many cells as the header."""

import re

from tunelab.data.bad_rows import Fault, Row, excerpt
from tunelab.data.json_rows import too_long
from tunelab.data.quoting import Reading, choose, lines_of, read_plain, read_quoted
from tunelab.errors import DataError

CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")  # what no text needs; tab and line ends pass


def table_rows(
    name: str, text: str, delimiter: str, *, quoting: str, header: list[str] | None, on_bad: str, max_line_bytes: int
) -> tuple[list[tuple[int, Row | Fault]], list[str]]:
    """Rows of a CSV or TSV file with the line each starts on, and notes on how it was read.

    Args:
        name: The file, as messages name it.
        text: Its whole content.
        delimiter: What stands between cells.
        quoting: "minimal" (RFC 4180), "none" (quotes are plain characters) or "auto" (see `choose`).
        header: Column names of a file whose first line is already a record; None where the first line names them.
        on_bad: As in `read_records`.
        max_line_bytes: Longest record, in bytes of UTF-8.

    Raises:
        DataError: If the quoting cannot be settled or the header cannot be used.
    """
    lines = lines_of(text)
    match quoting:
        case "minimal":
            reading, note = read_quoted(lines, delimiter), ""
        case "none":
            reading, note = read_plain(lines, delimiter), ""
        case _:
            reading, note = choose(name, lines, delimiter, on_bad=on_bad)
    names, body = header_of(name, reading, header)
    outcomes: list[tuple[int, Row | Fault]] = [*reading.faults]
    for first, _, cells in body:
        bad = next((c for c in cells if not c.isprintable() and CONTROL.search(c)), None)
        if bad is not None:
            outcomes.append((first, Fault(f"holds a control or undecodable character, in: {excerpt(bad)}")))
        elif too_long("".join(cells), max_line_bytes):
            limit = f"data.max_line_bytes={max_line_bytes}"
            outcomes.append((first, Fault(f"longer than {limit}; cut the record, or raise the limit")))
        else:
            outcomes.append((first, dict(zip(names, cells, strict=True))))
    outcomes.sort(key=lambda outcome: outcome[0])
    return outcomes, [note] if note else []


def header_of(
    name: str, reading: Reading, header: list[str] | None
) -> tuple[list[str], list[tuple[int, int, list[str]]]]:
    """Column names, and the records below them."""
    if not reading.cells:
        return [], []
    first, _, cells = reading.cells[0]
    early = [number for number, _ in reading.faults if number < first]
    if early and header is None:
        raise DataError(f"{name} line {early[0]}: the header itself cannot be read: {reading.faults[0][1].message}")
    names = cells if header is None else header
    if any(CONTROL.search(column) for column in names):
        raise DataError(f"{name} line {first}: a column name holds a control or undecodable character; rename it")
    if len(names) != reading.width:
        raise DataError(
            f"{name} line {first} has {reading.width} cells, data.header names {len(names)} ({', '.join(names)}); "
            f"name each column once"
        )
    twice = sorted({column for column in names if names.count(column) > 1})
    if twice:
        raise DataError(
            f"{name} line {first}: column {', '.join(map(repr, twice))} stands twice in the header; rename one. "
            f"A file without a header needs data.header=[...]"
        )
    if header is not None and cells == header:
        raise DataError(f"{name} line {first} is itself the header {', '.join(cells)}; leave data.header out")
    return names, reading.cells[1:] if header is None else reading.cells
