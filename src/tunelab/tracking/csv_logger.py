"""`metrics.csv`, the curves of a run as one wide table: what every report reads."""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, BinaryIO

from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from tunelab.runs.atomic_files import open_unlinked, write_atomically
from tunelab.tracking.base import UnnamedLogger

CURVES_FILE = "metrics.csv"
CurveRow = dict[str, str]  # column -> text; a column that is absent is an empty cell


def read_curve_rows(path: Path) -> tuple[list[str], list[CurveRow]]:
    """Columns and rows of a curves file; a last line that a crash cut short is left out."""
    text = path.read_text(encoding="utf-8")
    reader = csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    columns = next(reader, [])
    cells = [{name: cell for name, cell in zip(columns, line, strict=False) if cell} for line in reader]
    return columns, [row for row in cells if row.get("step", "").isdigit()]


class CurveLogger(UnnamedLogger):
    """Writes `metrics.csv`: step, epoch, then a column per metric; one row per step and epoch.

    Every row reaches the file at once.  What is logged in several parts for the same step and epoch (training,
    then validation) shares a row.  A metric seen for the first time adds a column, for which the file is written
    anew beside itself and swapped in.

    Steps are Lightning's: the first optimizer step is step 0.

    Args:
        folder: The run directory.
        resume_from_step: Optimizer steps already done.  Their rows are kept; later ones are dropped, because this
            run writes them again.  None starts a new file.
    """

    def __init__(self, folder: Path, *, resume_from_step: int | None = None) -> None:
        super().__init__()
        self.path = folder / CURVES_FILE
        self._resume_from_step = resume_from_step
        self._columns: list[str] = []
        self._tail: list[CurveRow] = []  # rows of the newest step: the only ones that may still change
        self._tail_start = 0  # bytes before the first of them
        self._stream: BinaryIO | None = None
        self._started = False

    @property
    @override
    def save_dir(self) -> str | None:
        return str(self.path.parent)

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if not self._started:
            self._start()
        fresh = {name: repr(value) for name, value in metrics.items()}
        fresh["step"] = str(0 if step is None else step)
        fresh.setdefault("epoch", "")
        new_columns = [name for name in fresh if name not in self._columns]
        if self._tail and self._tail[-1]["step"] == fresh["step"]:
            self._merge(fresh)
        else:
            self._tail, self._tail_start = [fresh], self._open().seek(0, os.SEEK_END)
        if new_columns:
            self._add_columns(new_columns)
        self._write_tail()

    @override
    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the file; a later `log_metrics` (Lightning tests after it fits) opens it again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _merge(self, fresh: CurveRow) -> None:
        for row in self._tail:
            if row.get("epoch", "") == fresh["epoch"]:
                row.update(fresh)
                return
        self._tail.append(fresh)

    def _start(self) -> None:
        self._started = True
        rows: list[CurveRow] = []
        self._columns = ["step", "epoch"]
        if self._resume_from_step is not None and self.path.is_file():
            columns, rows = read_curve_rows(self.path)
            rows = [row for row in rows if int(row["step"]) < self._resume_from_step]
            used = {name for row in rows for name in row}  # a metric that only dropped rows had is no column yet
            self._columns += [name for name in columns if name in used and name not in self._columns]
        self._rewrite(rows)

    def _add_columns(self, names: list[str]) -> None:
        stream = self._open()
        stream.truncate(self._tail_start)
        _, rows = read_curve_rows(self.path)
        self._columns += names
        tail = self._tail
        self._rewrite(rows)
        self._tail, self._tail_start = tail, self._open().seek(0, os.SEEK_END)

    def _rewrite(self, rows: list[CurveRow]) -> None:
        """Write the whole file beside itself and swap it in, so that a crash leaves the old one or the new one."""
        self.finalize("rewritten")
        newest = rows[-1]["step"] if rows else None
        self._tail = [row for row in rows if row["step"] == newest]
        older = [row for row in rows if row["step"] != newest]
        self.path.parent.mkdir(parents=True, exist_ok=True)

        def fill(stream: IO[bytes]) -> None:
            stream.write(_csv_line(self._columns))
            for row in older:
                stream.write(self._encode_row(row))
            self._tail_start = stream.tell()
            for row in self._tail:
                stream.write(self._encode_row(row))

        write_atomically(self.path, fill)

    def _write_tail(self) -> None:
        stream = self._open()
        stream.seek(self._tail_start)
        stream.write(b"".join(self._encode_row(row) for row in self._tail))
        stream.truncate()
        stream.flush()

    def _encode_row(self, row: CurveRow) -> bytes:
        return _csv_line([row.get(name, "") for name in self._columns])

    def _open(self) -> BinaryIO:
        if self._stream is None:
            self._stream = os.fdopen(open_unlinked(self.path, os.O_RDWR), "r+b")
        return self._stream


def _csv_line(cells: list[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode("utf-8")
