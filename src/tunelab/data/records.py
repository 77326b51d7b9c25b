"""Read user data: a file, a file inside a package, or a hub data set, into rows that know their line."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from hashlib import file_digest
from pathlib import Path
from typing import Any

from tunelab.data.bad_rows import Outcomes, Row, Sink, settle
from tunelab.data.decode import check_encoding
from tunelab.data.hub import hub_rows, hub_set, is_hub_name, rows_sha256
from tunelab.data.json_array import json_array
from tunelab.data.json_rows import json_lines
from tunelab.data.mapped import Scratch
from tunelab.data.parquet import ParquetFile, plain_schema
from tunelab.data.places import PREFIX, locate
from tunelab.data.tables import table_rows
from tunelab.data.text_file import TableLines, TextFile
from tunelab.errors import ConfigError, DataError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (".json", ".jsonl", ".ndjson", *DELIMITERS, ".parquet")
ON_BAD = ("error", "skip")
QUOTING = ("auto", "minimal", "none")
IN_MEMORY = 64  # megabytes


@dataclass(frozen=True)
class Records:
    """Rows of one source, in its order.

    Attributes:
        rows: One plain dict per record.  CSV and TSV hold texts only; JSON and parquet keep their types.  A list; of
            a large file the rows stay on disk, and each access makes a fresh dict.
        lines: Line of the file on which each record starts, from 1; for parquet and hub sets its row number.
        source: As the user named it.
        sha256: Of the bytes of the file; for a hub set, of the rows as JSON.
        skipped: One message per bad line that was left out (data.on_bad=skip).
        notes: How the file was read, where there was a choice.
        unit: What `lines` counts: "line" or "row".
        scratch: Of a large file, the folder its rows lie in.
    """

    rows: Sequence[Row]
    lines: Sequence[int]
    source: str
    sha256: str
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unit: str = "line"
    scratch: Scratch | None = None

    def where(self, i: int) -> str:
        """Where row `i` stands, as a message names it: "train.jsonl line 412"."""
        return f"{short(self.source)} {self.unit} {self.lines[i]}"

    def columns(self) -> list[str]:
        """Every key of every row, in order of first appearance."""
        return list(dict.fromkeys(key for row in self.rows for key in row))


def read_records(
    source: str,
    *,
    encoding: str = "utf-8",
    on_bad: str = "error",
    quoting: str = "auto",
    header: list[str] | None = None,
    max_line_bytes: int = 16 * 2**20,
    in_memory: float = IN_MEMORY,
    cache: str | None = None,
) -> Records:
    """Read every record of a source, strictly: what cannot be kept as written is refused, never changed.

    Args:
        source: A path, `package:NAME/inner/path`, or a hub data set `owner/name[:split]`.  The suffix of a file says
            its format: .json (an array, or an object holding one), .jsonl, .ndjson, .csv, .tsv or .parquet.
        encoding: Of text files.  A byte order mark of UTF-8 is taken off.
        on_bad: "error" refuses a file with a bad line; "skip" leaves bad lines out, up to 1 % of the file.
        quoting: CSV and TSV: "minimal" (quotes group a cell), "none" (quotes are plain characters) or "auto".
        header: CSV and TSV: column names of a file that does not begin with them.
        max_line_bytes: Longest record, in bytes of UTF-8.
        in_memory: Megabytes up to which a source is held as a list; a larger one becomes a memory-mapped Arrow file.
        cache: Folder for such files; None takes the system's folder for temporary files.

    Raises:
        DataError: If the source does not exist, cannot be read, or holds no records; with file, line and a way out.
        ConfigError: If an argument is not legal or a package is not installed.
    """
    check_options(encoding, on_bad, quoting, max_line_bytes)
    path, name, bound = find(source), short(source), int(in_memory * 10**6)
    store = partial(make_store, cache=cache)
    if path is None:
        found = hub_set(source)
        rows = store(found.features.arrow_schema) if found.data.nbytes > bound else []
        lines, skipped = settle(name, hub_rows(found), rows, on_bad=on_bad, unit="row")
        kept = finished(rows)
        return Records(kept, lines, source, rows_sha256(kept), skipped, unit="row", scratch=scratch_of(rows))
    suffix, notes = path.suffix.lower(), list[str]()
    if header is not None and suffix not in DELIMITERS:
        raise ConfigError(f"data.header names the columns of a CSV or TSV file; {source} brings its own, leave it out")
    unit = "row" if suffix == ".parquet" else "line"
    outcomes: Outcomes
    try:
        with path.open("rb") as raw:
            digest = file_digest(raw, "sha256").hexdigest()
        size, schema = path.stat().st_size, None
        if suffix == ".parquet":
            table = ParquetFile(name, path) if size else None
            outcomes = table.rows() if table else ()
            size, schema = (max(size, table.bytes), plain_schema(table.schema)) if table else (0, None)
        else:
            keep_going = on_bad == "skip" and suffix != ".json"
            text = TextFile(name, path, encoding, keep_going=keep_going, whole=bound)
            if suffix in DELIMITERS:
                outcomes, notes = table_rows(
                    name,
                    TableLines(text),
                    DELIMITERS[suffix],
                    quoting=quoting,
                    header=header,
                    on_bad=on_bad,
                    max_line_bytes=max_line_bytes,
                )
            elif suffix == ".json":
                outcomes = json_array(name, text.pieces(), max_line_bytes)
            else:
                outcomes = json_lines(text.lines(), max_line_bytes)
        rows = store(schema) if size > bound else []
        lines, skipped = settle(name, outcomes, rows, on_bad=on_bad, unit=unit)
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror or error}") from error
    return Records(finished(rows), lines, source, digest, skipped, notes, unit, scratch_of(rows))


def make_store(schema: Any, cache: str | None) -> Sink:
    """A writer of rows to a file of its own."""
    from tunelab.data.arrow_store import JsonWriter, TypedWriter  # slow to load, and most files are small

    return JsonWriter(Scratch(cache)) if schema is None else TypedWriter(Scratch(cache), schema)


def finished(rows: Sink) -> Sequence[Row]:
    """What was written: the list itself, or the file, mapped."""
    found: Sequence[Row] = rows if isinstance(rows, list) else rows.finish()  # type: ignore[attr-defined]
    return found


def scratch_of(rows: Sink) -> Scratch | None:
    """The folder that a writer of rows writes to."""
    return getattr(rows, "scratch", None)


def check_options(encoding: str, on_bad: str, quoting: str, max_line_bytes: int) -> None:
    """Refuse what `read_records` cannot honour, all at once."""
    faults = []
    try:
        check_encoding(encoding)
    except ConfigError as error:
        faults.append(str(error))
    if on_bad not in ON_BAD:
        faults.append(f"data.on_bad={on_bad!r} is unknown; choose from {', '.join(ON_BAD)}")
    if quoting not in QUOTING:
        faults.append(f"data.quoting={quoting!r} is unknown; choose from {', '.join(QUOTING)}")
    if max_line_bytes < 1:
        faults.append(f"data.max_line_bytes={max_line_bytes} must be above zero")
    if faults:
        raise ConfigError.listing(faults)


def short(source: str) -> str:
    """The last part of a path; the whole name of a hub set."""
    return source.replace("\\", "/").rpartition("/")[2] if Path(source).suffix.lower() in SUFFIXES else source


def find(source: str) -> Path | None:
    """The file behind `source`; None where it can only be a hub set.

    Raises:
        DataError: If it looks like a path and is not there, is a folder, or has a suffix nobody reads.
    """
    try:
        path = locate(source)
    except (OSError, RuntimeError, ValueError, ImportError) as error:  # too long a name, no such home, a NUL
        raise DataError(f"{source[:80]!r} cannot be a path or data set: {error}") from error
    if path is None:
        if looks_like_path(source) or not is_hub_name(source):
            raise DataError(missing(source))
        return None
    if path.is_dir():
        inside = sorted(child.name for child in path.iterdir() if child.suffix.lower() in SUFFIXES)
        held = ", ".join(inside[:8]) or "it holds none that can be read"
        raise DataError(f"{source} is a folder; name one file in it: {held}")
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{source}: no format goes by the suffix '{path.suffix}'; there are {', '.join(SUFFIXES)}")
    return path


def looks_like_path(text: str) -> bool:
    """Whether `text` can only have been meant as a file: data set names have no suffix and one slash at most."""
    rooted = text.startswith(("/", "./", "../", "~", PREFIX)) or "\\" in text or text.count("/") > 1
    return rooted or re.search(r"\.[A-Za-z]\w*$", text) is not None


def missing(source: str) -> str:
    """No such file, and what stands beside it under a similar name."""
    try:
        path = Path(source).expanduser()
        beside = sorted(child.name for child in path.parent.iterdir())
    except (OSError, RuntimeError, ValueError):
        return f"no such file: {source!r}; there is no such folder either"
    near = get_close_matches(path.name, beside, n=3, cutoff=0.5)
    held = ", ".join(near) if near else f"nothing of a similar name among {len(beside)} entries"
    return f"no such file: {source!r}; in folder {path.parent} there is {held}"
