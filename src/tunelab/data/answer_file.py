"""Records with their answers, written as a whole file."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from tunelab.atomic import plain, write_with
from tunelab.data.records import Records
from tunelab.errors import ConfigError
from tunelab.json_lines import write_lines

OURS = ("prediction", "probabilities", "agreement", "error")  # columns of the output that the input must not have
SUFFIXES = (".jsonl", ".csv")


def check_target(path: Path, *, overwrite: bool) -> Path:
    """The file to write, if it can be written.

    Raises:
        ConfigError: If its suffix is not known, its folder is not there, or it would replace a file unasked.
    """
    faults = []
    if path.suffix.lower() not in SUFFIXES:
        faults.append(f"--output={path}: the suffix says the format; end it in {' or '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        faults.append(f"--output={path}: there is no folder {path.parent}; make it first")
    if path.exists() and not (overwrite and path.is_file()):
        faults.append(f"--output={path} is there already; give another name, or --overwrite to replace a file")
    if faults:
        raise ConfigError.listing(faults)
    return path


def write_answers(path: Path, records: Records, answers: Sequence[Mapping[str, Any]]) -> None:
    """Write every record with its answer, in order; the file appears whole.

    CSV holds texts as they are, lists and mappings as JSON, and nothing where there is no value.
    """
    rows = [{**record, **answer} for record, answer in zip(records.rows, answers, strict=True)]
    if path.suffix.lower() == ".jsonl":
        write_lines(path, (settled(row) for row in rows))
        return
    ours = [name for name in OURS if name == "prediction" or any(name in answer for answer in answers)]
    write_with(path, partial(write_table, names=[*records.columns(), *ours], rows=rows))


def write_table(file: IO[bytes], *, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV (RFC 4180) in UTF-8."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([cell(row.get(name)) for name in names])
    text.flush()
    text.detach()  # the file stays open: it is not ours to close


def cell(value: Any) -> str:
    """A value as the text of a CSV cell."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(settled(value), ensure_ascii=False)


def settled(value: Any) -> Any:
    """A plain value; what JSON does not know, such as a date out of a parquet file, as text."""
    if isinstance(value, Mapping):
        return {str(key): settled(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [settled(item) for item in value]
    try:
        return plain(value)
    except TypeError:
        return str(value)
