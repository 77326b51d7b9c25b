"""Prediction files: the resumable partial file, and the finished JSONL or CSV, written whole."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tunelab.data.readers import Records
from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.runs.atomic_files import to_plain, write_atomically, write_error, write_json_lines
from tunelab.runs.locks import lock_handle


class PartialPredictions:
    """A file of one JSON object per line: first what the answers belong to, then the answers in the order of rows.

    Args:
        path: The file; made if it is not there.
        belongs: What the answers depend on, by what it is called in a message: input, model, settings.

    Attributes:
        predictions: Those that are already there.

    Raises:
        ConfigError: If another process writes to it, or its answers belong to something else.
    """

    def __init__(self, path: Path, belongs: Mapping[str, Any]) -> None:
        self.path = path
        try:
            self.file: IO[bytes] = path.open("a+b")
        except OSError as fault:
            raise ConfigError(
                translate("cannot write {path}: {reason}; choose another --output", path=path, reason=fault.strerror)
            ) from fault
        with suppress(OSError):  # a network disk without kernel locks
            if not lock_handle(self.file.fileno(), wait=False):
                self.file.close()
                raise ConfigError(
                    translate("another process is writing to {path}; wait for it, or give another --output", path=path)
                )
        self.predictions = self._read(dict(belongs))

    def _read(self, belongs: dict[str, Any]) -> list[dict[str, Any]]:
        self.file.seek(0)
        whole = self.file.read()
        whole = whole[: whole.rfind(b"\n") + 1]  # what follows was being written when the process died
        lines = whole.split(b"\n")[:-1]
        if lines:
            known = _parse_line(lines[0])
            changed = [name for name in belongs if known.get(name) != belongs[name]]
            if changed:
                self.file.close()
                raise ConfigError(
                    translate(
                        "{path} holds {count} [answer that belongs|answers that belong] to another {names}; mixed "
                        "with new ones "
                        "they would be wrong. Delete it to start anew, or give another --output",
                        path=self.path,
                        count=len(lines) - 1,
                        names=translate(" and ").join(changed),
                    )
                )
        self.file.truncate(len(whole))
        if not lines:
            self._append([belongs])
        return [_parse_line(line) for line in lines[1:]]

    def add(self, answers: Sequence[Mapping[str, Any]]) -> None:
        """Append answers, and see to it that they are on the disk."""
        self._append(answers)
        self.predictions += [dict(answer) for answer in answers]

    def _append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(to_plain(row)) + "\n" for row in rows)
        try:
            self.file.write(text.encode())
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as fault:
            raise write_error(self.path, fault, f"{len(text):,}") from fault

    def delete(self) -> None:
        """Delete the file: its answers are in their place now."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()


def _parse_line(line: bytes) -> dict[str, Any]:
    """A line of the file; empty where it is damaged, which then belongs to nothing."""
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


OUTPUT_COLUMNS = (
    "prediction",
    "probabilities",
    "agreement",
    "error",
)  # columns of the output that the input must not have
OUTPUT_SUFFIXES = (".jsonl", ".csv")


def check_output_path(path: Path, *, overwrite: bool) -> Path:
    """The file to write, if it can be written.

    Raises:
        ConfigError: If its suffix is not known, its folder is not there, or it would replace a file unasked.
    """
    faults = []
    if path.suffix.lower() not in OUTPUT_SUFFIXES:
        faults.append(
            translate(
                "--output={path}: the suffix says the format; end it in {names}",
                path=path,
                names=" or ".join(OUTPUT_SUFFIXES),
            )
        )
    if not path.parent.is_dir():
        faults.append(
            translate("--output={path}: there is no folder {folder}; make it first", path=path, folder=path.parent)
        )
    if path.exists() and not (overwrite and path.is_file()):
        faults.append(
            translate(
                "--output={path} is there already; give another name, or --overwrite to replace a file", path=path
            )
        )
    if faults:
        raise ConfigError.listing(faults)
    return path


def write_predictions(path: Path, records: Records, answers: Sequence[Mapping[str, Any]]) -> None:
    """Write every record with its answer, in order; the file appears whole.

    CSV holds texts as they are, lists and mappings as JSON, and nothing where there is no value.
    """
    rows = [{**record, **answer} for record, answer in zip(records.rows, answers, strict=True)]
    if path.suffix.lower() == ".jsonl":
        write_json_lines(path, (to_json_value(row) for row in rows))
        return
    ours = [name for name in OUTPUT_COLUMNS if name == "prediction" or any(name in answer for answer in answers)]
    write_atomically(path, partial(write_csv, names=[*records.columns(), *ours], rows=rows))


def write_csv(file: IO[bytes], *, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV (RFC 4180) in UTF-8."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([csv_cell(row.get(name)) for name in names])
    text.flush()
    text.detach()  # the file stays open: it is not ours to close


def csv_cell(value: Any) -> str:
    """A value as the text of a CSV cell."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(to_json_value(value), ensure_ascii=False)


def to_json_value(value: Any) -> Any:
    """A plain value; what JSON does not know, such as a date out of a parquet file, as text."""
    if isinstance(value, Mapping):
        return {str(key): to_json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(item) for item in value]
    try:
        return to_plain(value)
    except TypeError:
        return str(value)
