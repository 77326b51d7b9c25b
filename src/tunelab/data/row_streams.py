"""Rows of a source as they arrive, from its start or from a place on: a file read bit by bit, or a data set of the hub.

Nothing is kept, so that a source may be larger than memory and disk.
"""

from array import array
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

from tunelab.config.schema import DataConfig
from tunelab.data.bad_rows import RowDict, RowFault, RowOutcome, clean_row, drop_nested_nulls, separate_bad_rows
from tunelab.data.columns import drop_columns
from tunelab.data.readers import (
    LINE_SUFFIXES,
    MAX_LINE_BYTES,
    ParquetFile,
    Records,
    check_content,
    check_reader_options,
    check_row,
    find_file,
    load_hub_dataset,
    parse_text,
    rows_sha256,
    short_name,
)
from tunelab.data.text_file import TextFile
from tunelab.errors import DataError, TuneLabError, first_line
from tunelab.language.translation import translate

HEAD_ROWS: Final = 1000  # of a stream, by which its columns and its format are told
StreamPlace = dict[str, Any]  # where a stream stands: plain values; empty at its start


class RowStream(Protocol):
    """Rows of a source in their order.

    Attributes:
        unit: What their numbers count: "line" or "row".
    """

    unit: str

    def rows(self, place: StreamPlace) -> Iterator[RowOutcome]:
        """The rows from a place on, with their numbers from 1."""

    def place(self) -> StreamPlace:
        """The place behind the row that came last."""


class FileStream:
    """Rows of a file.

    Args:
        source: As the user named it.
        path: The file.
        data: How it is read.
    """

    def __init__(self, source: str, path: Path, data: DataConfig) -> None:
        check_reader_options(data.encoding, data.on_bad, data.quoting, MAX_LINE_BYTES)
        check_content(source, path)
        self.name, self.path, self.data, self.suffix = short_name(source), path, data, path.suffix.lower()
        self.unit = "line" if self.suffix in LINE_SUFFIXES else "row"
        self.passed = 0

    def rows(self, place: StreamPlace) -> Iterator[RowOutcome]:
        """The rows from a place on; of lines those before it are not even parsed."""
        self.passed = int(place.get("passed", 0))
        if self.suffix in LINE_SUFFIXES:
            for number, outcome in self._outcomes(self.passed):
                self.passed = number
                yield number, outcome
            return
        for _, outcome in islice(self._outcomes(0), self.passed, None):
            self.passed += 1
            yield self.passed, outcome

    def place(self) -> StreamPlace:
        """The place behind the row that came last."""
        return {"passed": self.passed}

    def _outcomes(self, passed: int) -> Iterator[RowOutcome]:
        data = self.data
        if self.suffix == ".parquet":
            yield from ParquetFile(self.name, self.path).rows(clean=data.on_bad == "clean")
            return
        text = TextFile(self.name, self.path, data.encoding, keep_going=data.on_bad == "skip", whole=0)
        yield from parse_text(
            text,
            self.suffix,
            array("q"),
            quoting=data.quoting,
            header=data.header,
            on_bad=data.on_bad,
            passed=passed,
        )[0]


class HubStream:
    """Rows of a data set of the hub.

    Args:
        source: Its name, `owner/name[:split]`.
        clean: Whether texts are not checked, since they are about to be cleaned.
    """

    unit = "row"

    def __init__(self, source: str, *, clean: bool) -> None:
        self.source, self.clean = source, clean
        self.dataset: Any = None
        self.passed = 0

    def rows(self, place: StreamPlace) -> Iterator[RowOutcome]:
        """The rows from a place on, which the data set finds by its own notes on it."""
        self.dataset, self.passed = load_hub_dataset(self.source, streaming=True), int(place.get("passed", 0))
        if place:
            self.dataset.load_state_dict(place["source"])
        try:
            for row in self.dataset:
                self.passed += 1
                yield self.passed, row if self.clean else check_row(row)
        except TuneLabError:
            raise
        except Exception as fault:  # the network, or what another library makes of a broken file
            raise DataError(
                translate(
                    "{source} broke off behind row {row:,}: {fault}. Resume the run once it can be read again: it goes "
                    "on from its last checkpoint",
                    source=self.source,
                    row=self.passed,
                    fault=f"{type(fault).__name__}: {first_line(fault)}",
                )
            ) from fault

    def place(self) -> StreamPlace:
        """The place behind the row that came last."""
        return {"passed": self.passed, "source": self.dataset.state_dict()} if self.passed else {}


class MendedStream:
    """Rows of a stream as they are learned from.

    Args:
        stream: The rows.
        clean: Whether control characters are taken out of their texts.
        has_schema: Whether each row comes with the keys of all others.
        ignored: Columns that are left out.
    """

    def __init__(self, stream: RowStream, *, clean: bool, has_schema: bool, ignored: Collection[str]) -> None:
        self.stream, self.unit, self.place = stream, stream.unit, stream.place
        self.clean, self.has_schema, self.ignored = clean, has_schema, frozenset(ignored)

    def rows(self, place: StreamPlace) -> Iterator[RowOutcome]:
        """The rows from a place on, with their numbers from 1."""
        for number, row in self.stream.rows(place):
            yield number, row if isinstance(row, RowFault) else self._mend(row)

    def _mend(self, row: RowDict) -> RowDict:
        row = clean_row(row) if self.clean else row
        row = drop_nested_nulls(row) if self.has_schema else row
        return drop_columns(row, self.ignored) if self.ignored else row


def open_stream(data: DataConfig, ignored: Collection[str] = ()) -> RowStream:
    """The stream of the rows to learn from, without some columns.

    Raises:
        DataError: If there is no such file or data set.
    """
    source, path, clean = str(data.train), find_file(str(data.train)), data.on_bad == "clean"
    stream: RowStream = HubStream(source, clean=clean) if path is None else FileStream(source, path, data)
    has_schema = path is None or path.suffix.lower() == ".parquet"
    return MendedStream(stream, clean=clean, has_schema=has_schema, ignored=ignored)


def read_head(data: DataConfig) -> Records:
    """The first rows of a stream, by which its columns and its format are told; their hash stands for its contents.

    Raises:
        DataError: If it cannot be read, or holds no rows.
    """
    stream, source = open_stream(data), str(data.train)
    rows: list[RowDict] = []
    place = f"{stream.unit} {{}}".format
    try:
        first = islice(stream.rows({}), HEAD_ROWS)
        lines, skipped = separate_bad_rows(short_name(source), first, rows, on_bad=data.on_bad, place=place)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(translate("{source} cannot be read: {value}", source=source, value=reason)) from error
    note = translate(
        "{name} is streamed: its columns, format, labels or scale, and what is reported of train, are those of its "
        "first {rows:,} [row|rows]; duplicates and leaks beyond them are not looked for",
        name=short_name(source),
        rows=len(rows),
    )
    return Records(rows, lines, source, rows_sha256(rows), skipped, [note], stream.unit)
