"""Readers of user data: a file, a file inside a package, or a hub data set becomes rows that know their line.

JSON, CSV and TSV have modules of their own; parquet files and hub data sets are read here.
"""

import json
import re
import shlex
from array import array
from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from hashlib import sha256
from itertools import islice
from operator import eq
from pathlib import Path
from typing import Any, get_args

from tunelab.config.resource_paths import PACKAGE_PREFIX, expand_home, resolve_path
from tunelab.config.schema import OnBad, Quoting
from tunelab.config.stored_files import no_file_reason
from tunelab.data.bad_rows import (
    RowDict,
    RowFault,
    RowOutcome,
    RowRepair,
    RowSink,
    clean_row,
    drop_nested_nulls,
    excerpt,
    judge_bad_rows,
    separate_bad_rows,
)
from tunelab.data.json_reader import read_json_array, read_json_lines, unusable_text_reason
from tunelab.data.lazy_sequences import LazySequence
from tunelab.data.line_reader import store_json_lines
from tunelab.data.memory_map import ScratchDir
from tunelab.data.table_reader import read_table
from tunelab.data.text_file import TableLines, TextFile, check_encoding
from tunelab.data.text_store import JsonRowWriter, stored_rows
from tunelab.errors import ConfigError, DataError, first_line
from tunelab.language.translation import message, translate
from tunelab.runs.file_digests import sha256_file

DELIMITERS = {".csv": ",", ".tsv": "\t"}
LINE_SUFFIXES = (".jsonl", ".ndjson")
READABLE_SUFFIXES = (".json", *LINE_SUFFIXES, *DELIMITERS, ".parquet")
MAX_LINE_BYTES = 16 * 2**20  # longest record
ON_BAD_CHOICES: tuple[str, ...] = get_args(OnBad)
QUOTING_CHOICES: tuple[str, ...] = get_args(Quoting)
MEGABYTE = 10**6  # bytes
DEFAULT_IN_MEMORY_MB = 64  # megabytes


@dataclass(frozen=True)
class Records:
    """Rows of one source, in its order.

    Attributes:
        rows: One plain dict per record.  CSV and TSV hold texts only; JSON and parquet keep their types.  A list; of
            a large file the rows stay on disk, and each access makes a fresh dict.
        lines: Line of the file on which each record starts, from 1; for parquet, hub sets and JSON on one line its own
            number.
        source: As the user named it.
        sha256: Of the bytes of the file; for a hub set, of the rows as JSON.
        skipped: One message per bad line that was left out (data.on_bad=skip).
        notes: How the file was read, where there was a choice.
        line_unit: What `lines` counts: "line" or "row", or "record" where several stand on one line.
        scratch: Of a large file, the folder its rows lie in.
    """

    rows: Sequence[RowDict]
    lines: Sequence[int]
    source: str
    sha256: str
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    line_unit: str = "line"
    scratch: ScratchDir | None = None

    def location(self, i: int) -> str:
        """The location of row `i`, as a message names it: "train.jsonl line 412"."""
        return self.locations[i]

    @property
    def locations(self) -> "Locations":
        """The location of each row."""
        return Locations(short_name(self.source), self.line_unit, self.lines)

    def columns(self) -> list[str]:
        """Every key of every row, in order of first appearance."""
        return list(dict.fromkeys(key for row in self.rows for key in row))


class Locations(LazySequence[str]):
    """Where rows stand, as messages name it."""

    def __init__(self, name: str, unit: str, lines: Sequence[int]) -> None:
        self.name, self.unit, self.lines = name, unit, lines

    def __len__(self) -> int:
        return len(self.lines)

    def item(self, index: int) -> str:
        return f"{self.name} {self.unit} {self.lines[index]}"


def read_records(
    source: str,
    *,
    encoding: str = "utf-8",
    on_bad: str = "error",
    quoting: str = "auto",
    header: Sequence[str] | None = None,
    max_line_bytes: int = MAX_LINE_BYTES,
    in_memory: float = DEFAULT_IN_MEMORY_MB,
    cache: str | None = None,
) -> Records:
    """Read every record of a source, strictly: what cannot be kept as written is refused, never changed.

    Args:
        source: A path, `package:NAME/inner/path`, or a hub data set `owner/name[:split]`.  The suffix of a file says
            its format: .json (an array, or an object holding one), .jsonl, .ndjson, .csv, .tsv or .parquet.
        encoding: Of text files.  A byte order mark of UTF-8 is taken off.
        on_bad: "error" refuses a file with a bad line; "skip" leaves bad lines out, up to 1 % of the file; "clean"
            takes control characters and unpaired surrogates out of texts, and refuses what is bad otherwise.
        quoting: CSV and TSV: "minimal" (quotes group a cell), "none" (quotes are plain characters) or "auto".
        header: CSV and TSV: column names of a file that does not begin with them.
        max_line_bytes: Longest record, in bytes of UTF-8.
        in_memory: Megabytes up to which a source is held as a list; a larger one becomes a memory-mapped Arrow file.
        cache: Folder for such files; None takes the system's folder for temporary files.

    Raises:
        DataError: If the source does not exist, cannot be read, or holds no records; with file, line and a way out.
        ConfigError: If an argument is not legal or a package is not installed.
    """
    check_reader_options(encoding, on_bad, quoting, max_line_bytes)
    path, name, bound = find_file(source), short_name(source), int(in_memory * MEGABYTE)
    store = partial(make_row_sink, cache=cache)
    clean = on_bad == "clean"
    repairs = [RowRepair(clean_row, translate("control characters are taken out of texts"))] if clean else []
    nulls = RowRepair(
        drop_nested_nulls, translate("null keys inside columns are left out, which Arrow gives to every record,")
    )
    if path is None:
        dataset = load_hub_dataset(source)
        rows = store(dataset.features.arrow_schema) if dataset.data.nbytes > bound else []
        repairs, row_place = [*repairs, nulls], "row {}".format
        outcomes: Iterable[RowOutcome] = hub_rows(dataset, clean=clean)
        lines, skipped = separate_bad_rows(name, outcomes, rows, on_bad=on_bad, place=row_place, repairs=repairs)
        notes = [note for repair in repairs for note in repair.note(name, row_place)]
        kept = close_sink(rows)
        return Records(kept, lines, source, rows_sha256(kept), skipped, notes, "row", sink_scratch_dir(rows))
    suffix, notes, starts = path.suffix.lower(), [], array("q")
    if header is not None and suffix not in DELIMITERS:
        raise ConfigError(
            translate(
                "data.header names the columns of a CSV or TSV file; {source} brings its own, leave it out",
                source=source,
            )
        )

    def place(number: int) -> str:
        unit = "row" if suffix == ".parquet" else "record" if shares_lines(starts) else "line"
        return f"{unit} {starts[number - 1] if starts and unit == 'line' else number}"

    try:
        check_content(source, path)
        digest = sha256_file(path)
        size, schema = path.stat().st_size, None
        if suffix == ".parquet":
            table = ParquetFile(name, path) if size else None
            outcomes = table.rows(clean=clean) if table else ()
            repairs.append(nulls)
            size, schema = (max(size, table.bytes), decoded_schema(table.schema)) if table else (0, None)
        else:
            keep_going = on_bad == "skip" and suffix != ".json"
            text = TextFile(name, path, encoding, keep_going=keep_going, whole=bound)
            lines_of_utf8 = suffix in LINE_SUFFIXES and text.codec in ("utf-8", "utf-8-sig")
            if lines_of_utf8 and size > bound and not clean and text.text is None:
                text.check_head()
                scratch = ScratchDir(cache)
                if stored := store_json_lines(path, scratch, max_line_bytes, keep_going=keep_going):
                    skipped = judge_bad_rows(name, stored.bad, len(stored.rows), on_bad=on_bad, place=place)
                    rows_on_disk = stored_rows(stored.rows.finish())
                    return Records(rows_on_disk, stored.numbers, source, digest, skipped, scratch=scratch)
            outcomes, notes = parse_text(
                text, suffix, starts, quoting=quoting, header=header, on_bad=on_bad, max_line_bytes=max_line_bytes
            )
        rows = store(schema) if size > bound else []
        lines, skipped = separate_bad_rows(name, outcomes, rows, on_bad=on_bad, place=place, repairs=repairs)
    except OSError as error:
        raise DataError(
            translate("{source} cannot be read: {value}", source=source, value=error.strerror or error)
        ) from error
    notes += [note for repair in repairs for note in repair.note(name, place)]
    unit = place(1).partition(" ")[0]
    if starts and unit == "line":
        lines = [starts[number - 1] for number in lines]
    return Records(close_sink(rows), lines, source, digest, skipped, notes, unit, sink_scratch_dir(rows))


def parse_text(
    text: TextFile,
    suffix: str,
    starts: MutableSequence[int],
    *,
    quoting: str = "auto",
    header: Sequence[str] | None = None,
    on_bad: str = "error",
    max_line_bytes: int = MAX_LINE_BYTES,
    passed: int = 0,
) -> tuple[Iterable[RowOutcome], list[str]]:
    """What stands in a text file row by row, read as it is gone through, and notes on how.

    Args:
        text: The file.
        suffix: Says its format.
        starts: Takes the lines on which the records of a .json file start.
        quoting: As of `read_records`.
        header: As of `read_records`.
        on_bad: As of `read_records`.
        max_line_bytes: Longest record, in bytes of UTF-8.
        passed: Lines of a .jsonl file that are left out.
    """
    clean = on_bad == "clean"
    if suffix in DELIMITERS:
        return read_table(
            text.name,
            TableLines(text),
            DELIMITERS[suffix],
            quoting=quoting,
            header=header,
            on_bad=on_bad,
            max_line_bytes=max_line_bytes,
        )
    if suffix == ".json":
        return read_json_array(text.name, text.pieces(), max_line_bytes, starts, clean=clean), []
    lines = text.lines()
    left = ("" if number < passed else line for number, line in enumerate(lines)) if passed else lines
    return read_json_lines(left, max_line_bytes, clean=clean), []


def shares_lines(starts: Sequence[int]) -> bool:
    """Whether records begin on the same line of a file, so that a line names none of them; lines are in order."""
    return any(map(eq, starts, islice(starts, 1, None)))


def make_row_sink(schema: Any, cache: str | None) -> RowSink:
    """A writer of rows to a file of its own."""
    if schema is None:
        return JsonRowWriter(ScratchDir(cache))
    from tunelab.data.arrow_store import SchemaRowWriter  # slow to load, and few files have a schema

    return SchemaRowWriter(ScratchDir(cache), schema)


def close_sink(rows: RowSink) -> Sequence[RowDict]:
    """The rows that were written: the list itself, or the file, memory-mapped."""
    stored: Sequence[RowDict] = rows if isinstance(rows, list) else rows.finish()  # type: ignore[attr-defined]
    return stored


def sink_scratch_dir(rows: RowSink) -> ScratchDir | None:
    """The folder that a writer of rows writes to."""
    return getattr(rows, "scratch", None)


def check_reader_options(encoding: str, on_bad: str, quoting: str, max_line_bytes: int) -> None:
    """Check the options of `read_records`; one error names all faults."""
    faults = []
    try:
        check_encoding(encoding)
    except ConfigError as error:
        faults.append(str(error))
    if on_bad not in ON_BAD_CHOICES:
        faults.append(
            translate(
                "data.on_bad={on_bad!r} is unknown; choose from {names}", on_bad=on_bad, names=", ".join(ON_BAD_CHOICES)
            )
        )
    if quoting not in QUOTING_CHOICES:
        faults.append(
            translate(
                "data.quoting={quoting!r} is unknown; choose from {names}",
                quoting=quoting,
                names=", ".join(QUOTING_CHOICES),
            )
        )
    if max_line_bytes < 1:
        faults.append(
            translate("data.max_line_bytes={max_line_bytes} must be above zero", max_line_bytes=max_line_bytes)
        )
    if faults:
        raise ConfigError.listing(faults)


def short_name(source: str) -> str:
    """The last part of a path; the whole name of a hub set."""
    return source.replace("\\", "/").rpartition("/")[2] if Path(source).suffix.lower() in READABLE_SUFFIXES else source


def find_file(source: str) -> Path | None:
    """The file behind `source`; None where it can only be a hub set.

    Raises:
        DataError: If it looks like a path and is not there, is a folder, or has a suffix nobody reads.
    """
    try:
        path = resolve_path(source)
    except (OSError, RuntimeError, ValueError, ImportError) as error:  # too long a name, no such home, a NUL
        raise DataError(
            translate("{source!r} cannot be a path or data set: {error}", source=source[:80], error=error)
        ) from error
    if path is None:
        if looks_like_path(source) or not is_hub_name(source):
            raise DataError(missing_file_message(source))
        return None
    if path.is_dir():
        inside = sorted(child.name for child in path.iterdir() if child.suffix.lower() in READABLE_SUFFIXES)
        held = ", ".join(inside[:8]) or translate("it holds none that can be read")
        raise DataError(translate("{source} is a folder; name one file in it: {held}", source=source, held=held))
    if reason := no_file_reason(path):
        raise DataError(translate("{source} {reason}; name a file on disk", source=source, reason=reason))
    if path.suffix.lower() not in READABLE_SUFFIXES:
        raise DataError(
            translate(
                "{source}: no format goes by the suffix '{suffix}'; there are {names}",
                source=source,
                suffix=path.suffix,
                names=", ".join(READABLE_SUFFIXES),
            )
        )
    return path


CONTENT_MARKS = {  # first bytes of a file, to what it is and how it is made one that can be read
    b"\x1f\x8b": (message("compressed by gzip"), "gunzip"),
    b"PK\x03\x04": (message("a zip archive"), "unzip"),
    b"PK\x05\x06": (message("an empty zip archive"), "unzip"),
    b"\xfd7zXZ\x00": (message("compressed by xz"), "unxz"),
    b"BZh": (message("compressed by bzip2"), "bunzip2"),
    b"\x28\xb5\x2f\xfd": (message("compressed by zstd"), "unzstd"),
    b"\x04\x22\x4d\x18": (message("compressed by lz4"), "unlz4"),
    b"7z\xbc\xaf\x27\x1c": (message("a 7-Zip archive"), "7z x"),
    b"PAR1": (message("a parquet file"), ""),
    b"ARROW1": (message("an Arrow file"), ""),
    b"SQLite format 3\x00": (message("an SQLite database"), ""),
    b"%PDF-": (message("a PDF"), ""),
    b"\x7fELF": (message("a program"), ""),
    b"\x80\x04\x95": (message("a pickle, which can hold code"), ""),
}


def check_content(source: str, path: Path) -> None:
    """Check that a file is not plainly of another kind than its suffix says.

    Raises:
        DataError: Naming what it is and what to do.
    """
    with path.open("rb") as file:
        head = file.read(16)
    suffix = path.suffix.lower()
    for mark, (kind, tool) in CONTENT_MARKS.items():
        if not head.startswith(mark) or (suffix == ".parquet" and mark == b"PAR1"):
            continue
        if mark == b"BZh" and head[4:10] != b"1AY&SY":
            continue
        advice = (
            translate("unpack it first: {tool} {file}", tool=tool, file=shlex.quote(source))
            if tool
            else translate("give the records as text")
        )
        if mark == b"PAR1":
            advice = translate("name it {name}", name=Path(source).with_suffix(".parquet").name)
        raise DataError(
            translate(
                "{source} is {kind}, not {suffix}; {advice}",
                source=source,
                kind=kind,
                suffix=suffix.lstrip("."),
                advice=advice,
            )
        )


def looks_like_path(text: str) -> bool:
    """Whether `text` can only have been meant as a file: data set names have no suffix and one slash at most."""
    rooted = text.startswith(("/", "./", "../", "~", PACKAGE_PREFIX)) or "\\" in text or text.count("/") > 1
    return rooted or re.search(r"\.[A-Za-z]\w*$", text) is not None


def missing_file_message(source: str) -> str:
    """No such file, and what stands beside it under a similar name."""
    with suppress(OSError, RuntimeError, ValueError):
        if reason := no_file_reason(expand_home(source)):
            return translate(
                "{source} {reason}; make the link anew, or name the file itself", source=source, reason=reason
            )
    try:
        path = expand_home(source)
        beside = sorted(child.name for child in path.parent.iterdir())
    except (OSError, RuntimeError, ValueError):
        return translate("no such file: {source!r}; there is no such folder either", source=source)
    near = get_close_matches(path.name, beside, n=3, cutoff=0.5)
    held = (
        ", ".join(near)
        if near
        else translate("nothing of a similar name among {count} [entry|entries]", count=len(beside))
    )
    return translate(
        "no such file: {source!r}; in folder {folder} there is {held}", source=source, folder=path.parent, held=held
    )


ROWS_PER_BATCH = 1024  # held at once


class ParquetFile:
    """A parquet file that is read a few rows at a time.

    Raises:
        DataError: If it is no parquet, or a column name stands twice.

    Attributes:
        bytes: Of its columns, uncompressed.
        schema: Names and types of its columns, as Arrow has them.
    """

    def __init__(self, name: str, path: Path) -> None:
        from pyarrow import parquet  # slow to load, and most data is text

        self.name, self.path = name, path
        with self._as_data_errors():
            self.file = parquet.ParquetFile(path)
            metadata = self.file.metadata
            self.bytes = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
            self.schema = self.file.schema_arrow
        names = self.schema.names
        if twice := sorted({column for column in names if names.count(column) > 1}):
            raise DataError(
                translate("{name}: column {names} stands twice; rename one", name=name, names=", ".join(twice))
            )

    def _as_data_errors(self) -> "ParquetErrors":
        return ParquetErrors(self.name)

    def rows(self, *, clean: bool = False) -> Iterator[RowOutcome]:
        """Rows with their numbers from 1; with `clean` texts are not checked, since they are about to be cleaned."""
        number = 0
        with self._as_data_errors():
            for batch in self.file.iter_batches(ROWS_PER_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row if clean else check_row(row)


class ParquetErrors:
    """Turns what Arrow raises inside a `with` block into a DataError that names the file."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, fault: BaseException | None, trace: Any) -> None:
        import pyarrow

        if isinstance(fault, pyarrow.ArrowException | ValueError | OSError | OverflowError | NotImplementedError):
            raise DataError(
                translate("{name} cannot be read as parquet: {fault}", name=self.name, fault=fault)
            ) from fault


def decoded_schema(schema: Any) -> Any:
    """The schema with every dictionary of values as the values themselves, which is what rows hold."""
    import pyarrow

    return pyarrow.schema(
        [
            pyarrow.field(field.name, field.type.value_type if pyarrow.types.is_dictionary(field.type) else field.type)
            for field in schema
        ]
    )


def check_row(row: RowDict) -> RowDict | RowFault:
    """The row, or why its texts break later steps."""
    reason = unusable_text_reason(row)
    return RowFault(translate("{reason}, in: {row}", reason=reason, row=excerpt(repr(row)))) if reason else row


HUB_NAME = re.compile(r"(?P<id>[\w.-]+(?:/[\w.-]+)?)(?::(?P<split>[\w.\[\]:%+-]+))?")
DEFAULT_HUB_SPLIT = "train"  # where the name gives none


def is_hub_name(text: str) -> bool:
    """Whether `text` has the form `owner/name[:split]` or `name[:split]`."""
    return HUB_NAME.fullmatch(text) is not None


def load_hub_dataset(source: str, *, streaming: bool = False) -> Any:
    """The data set, which `datasets` keeps in memory-mapped files.  One that needs a script it refuses by itself.

    With `streaming` its rows come as they are gone through, and nothing is kept.

    Raises:
        DataError: If the set cannot be loaded, for want of a network or otherwise.
    """
    match = HUB_NAME.fullmatch(source)
    if match is None:
        raise DataError(
            translate("'{source}' is neither a file here nor a hub data set such as owner/name:split", source=source)
        )
    name, split = match["id"], match["split"] or DEFAULT_HUB_SPLIT
    try:
        from datasets import load_dataset  # seconds to load, and most runs read files

        return load_dataset(name, split=split, **({"streaming": True} if streaming else {}))
    except Exception as error:  # the hub client raises errors of many libraries, and all mean the same here
        raise DataError(
            translate(
                "'{source}' is no file here, and loading it from the hub as data set {name}, split "
                "{split}, failed: {kind}: {error}. Check the name and the network, or name a "
                "local file",
                source=source,
                name=name,
                split=split,
                kind=type(error).__name__,
                error=first_line(error),
            )
        ) from error


def hub_rows(dataset: Any, *, clean: bool = False) -> Iterator[RowOutcome]:
    """Rows with their numbers from 1; with `clean` texts are not checked, since they are about to be cleaned."""
    for start in range(0, len(dataset), ROWS_PER_BATCH):
        rows = dataset.select(range(start, min(start + ROWS_PER_BATCH, len(dataset)))).to_list()
        for number, row in enumerate(rows, start=start + 1):
            yield number, row if clean else check_row(row)


def rows_sha256(rows: Iterable[RowDict]) -> str:
    """Fingerprint of rows that have no file: of their JSON, keys sorted, one row a line."""
    digest = sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n")
    return digest.hexdigest()
