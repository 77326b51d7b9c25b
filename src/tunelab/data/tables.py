"""CSV and TSV: every cell is text, as written, and every row has as many cells as the header."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain

from tunelab.data.bad_rows import Fault, Row, excerpt
from tunelab.data.json_rows import too_long
from tunelab.data.quoting import Reading, Span, choose, read_plain, read_quoted
from tunelab.errors import DataError

CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")  # what no text needs; tab and line ends pass


def table_rows(
    name: str,
    lines: Iterable[str],
    delimiter: str,
    *,
    quoting: str,
    header: list[str] | None,
    on_bad: str,
    max_line_bytes: int,
) -> tuple[Iterator[tuple[int, Row | Fault]], list[str]]:
    """Rows of a CSV or TSV file with the line each starts on, and notes on how it was read.

    Args:
        name: The file, as messages name it.
        lines: Its lines without their ends; gone through several times.
        delimiter: What stands between cells.
        quoting: "minimal" (RFC 4180), "none" (quotes are plain characters) or "auto" (see `choose`).
        header: Column names of a file whose first line is already a record; None where the first line names them.
        on_bad: As in `read_records`.
        max_line_bytes: Longest record, in bytes of UTF-8.

    Raises:
        DataError: If the quoting cannot be settled; and while rows are taken, if the header cannot be used.
    """
    reading: Reading = read_quoted if quoting == "minimal" else read_plain
    note = ""
    if quoting == "auto":
        reading, note = choose(name, lines, delimiter, on_bad=on_bad)
    return outcomes(name, reading(lines, delimiter), header, max_line_bytes), [note] if note else []


def outcomes(
    name: str, spans: Iterator[Span], header: list[str] | None, max_line_bytes: int
) -> Iterator[tuple[int, Row | Fault]]:
    """Each record as a row under its column names, or what is wrong with it."""
    early: list[tuple[int, Fault]] = []
    names: list[str] = []
    for span in spans:
        if isinstance(span.cells, Fault):
            early.append((span.first, span.cells))
            continue
        names = names_of(name, span, span.cells, header, early)
        spans = spans if header is None else chain([span], spans)
        break
    yield from early
    for first, _, cells, *_ in spans:
        if isinstance(cells, Fault):
            yield first, cells
        elif (bad := next((c for c in cells if not c.isprintable() and CONTROL.search(c)), None)) is not None:
            yield first, Fault(f"holds a control or undecodable character, in: {excerpt(bad)}")
        elif too_long("".join(cells), max_line_bytes):
            limit = f"data.max_line_bytes={max_line_bytes}"
            yield first, Fault(f"longer than {limit}; cut the record, or raise the limit")
        else:
            yield first, dict(zip(names, cells, strict=True))


def names_of(
    name: str, span: Span, cells: list[str], header: list[str] | None, early: list[tuple[int, Fault]]
) -> list[str]:
    """Column names: of the first record, or as they were given."""
    first = span.first
    if early and header is None:
        raise DataError(f"{name} line {early[0][0]}: the header itself cannot be read: {early[0][1].message}")
    names = cells if header is None else header
    if any(CONTROL.search(column) for column in names):
        raise DataError(f"{name} line {first}: a column name holds a control or undecodable character; rename it")
    if len(names) != span.width:
        raise DataError(
            f"{name} line {first} has {span.width} cells, data.header names {len(names)} ({', '.join(names)}); "
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
    return names
