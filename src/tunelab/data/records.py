"""Read user data: a file, a file inside a package, or a hub data set, into rows that know their line."""

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from tunelab.data.bad_rows import settle
from tunelab.data.decode import check_encoding, decode
from tunelab.data.hub import hub_rows, is_hub_name, rows_sha256
from tunelab.data.json_array import json_array
from tunelab.data.json_rows import json_lines
from tunelab.data.parquet import parquet_rows
from tunelab.data.places import PREFIX, locate
from tunelab.data.tables import table_rows
from tunelab.errors import ConfigError, DataError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (".json", ".jsonl", ".ndjson", *DELIMITERS, ".parquet")
ON_BAD = ("error", "skip")
QUOTING = ("auto", "minimal", "none")


@dataclass(frozen=True)
class Records:
    """Rows of one source, in its order.

    Attributes:
        rows: One plain dict per record.  CSV and TSV hold texts only; JSON and parquet keep their types.
        lines: Line of the file on which each record starts, from 1; for parquet and hub sets its row number.
        source: As the user named it.
        sha256: Of the bytes of the file; for a hub set, of the rows as JSON.
        skipped: One message per bad line that was left out (data.on_bad=skip).
        notes: How the file was read, where there was a choice.
        unit: What `lines` counts: "line" or "row".
    """

    rows: list[dict[str, Any]]
    lines: list[int]
    source: str
    sha256: str
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unit: str = "line"

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

    Raises:
        DataError: If the source does not exist, cannot be read, or holds no records; with file, line and a way out.
        ConfigError: If an argument is not legal or a package is not installed.
    """
    check_options(encoding, on_bad, quoting, max_line_bytes)
    path = find(source)
    if path is None:
        rows, lines, skipped = settle(short(source), hub_rows(source), on_bad=on_bad, unit="row")
        return Records(rows, lines, source, rows_sha256(rows), skipped, unit="row")
    if header is not None and path.suffix.lower() not in DELIMITERS:
        raise ConfigError(f"data.header names the columns of a CSV or TSV file; {source} brings its own, leave it out")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror or error}") from error
    name, suffix, notes = short(source), path.suffix.lower(), list[str]()
    unit = "row" if suffix == ".parquet" else "line"
    outcomes: Any
    if suffix == ".parquet":
        outcomes = parquet_rows(name, raw) if raw else []
    else:
        text = decode(name, raw, encoding, keep_going=on_bad == "skip" and suffix != ".json")
        if suffix in DELIMITERS:
            delimiter = DELIMITERS[suffix]
            outcomes, notes = table_rows(
                name, text, delimiter, quoting=quoting, header=header, on_bad=on_bad, max_line_bytes=max_line_bytes
            )
        else:
            read = partial(json_array, name) if suffix == ".json" else json_lines
            outcomes = read(text, max_line_bytes)
    rows, lines, skipped = settle(name, outcomes, on_bad=on_bad, unit=unit)
    return Records(rows, lines, source, sha256(raw).hexdigest(), skipped, notes, unit)


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
