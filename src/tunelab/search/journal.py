"""The journal of a study, safe against torn lines and full disks.

Optuna appends one JSON object a line.  A process that dies in the middle of a line leaves a piece without an end, the
next writer glues its line to it, and from then on nobody can open the study.  Here every opening and every append
looks at the end of the file first, under Optuna's own lock.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from typing_extensions import override

from tunelab.atomic import FULL
from tunelab.errors import TuneLabError

GRACE = 30  # seconds after which a lock that a dead process holds is taken over
PAUSE = 2.0  # seconds between two tries on a full disk


class SafeJournal(JournalFileBackend):
    """Optuna's journal file whose lines are whole.

    Args:
        path: The file; made where it is missing.
        patience: Seconds to wait for space on a full disk before giving up.
    """

    def __init__(self, path: Path, patience: float = 600.0) -> None:
        self.path, self.patience = path, patience
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lock = JournalFileSymlinkLock(str(path), GRACE)
        super().__init__(str(path), self.lock)
        self.gathering, self.owing = 0, False
        self.repaired = self._under_lock_mend()

    @override
    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append whole lines or none; waits for space.  On return they are on disk, unless within `at_once`.

        Raises:
            TuneLabError: If the disk stays full.
        """
        content = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        began = time.monotonic()
        while True:
            try:
                self._append(content)
                return
            except OSError as fault:
                if fault.errno not in FULL:
                    raise
                if time.monotonic() - began > self.patience:
                    raise TuneLabError(
                        f"cannot write to the journal {self.path}: {fault.strerror}, for {self.patience:.0f} s. "
                        "No trial is lost: free some space and give the same command again"
                    ) from fault
                time.sleep(min(PAUSE, self.patience))

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within it lines are written, and seen by others, as ever, but reach the disk together at its end.

        Waiting for the disk is most of what a line costs; a process that dies loses none of them either way.
        """
        self.gathering += 1
        try:
            yield
        finally:
            self.gathering -= 1
            if not self.gathering:
                self.settle()

    def settle(self) -> None:
        """Put on disk what is not there yet."""
        if not self.owing:
            return
        handle = os.open(self.path, os.O_WRONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        self.owing = False

    def _append(self, content: bytes) -> None:
        self.lock.acquire()
        try:
            size = self.path.stat().st_size
            if size and not ends_a_line(self.path):
                mend(self.path)
                size = self.path.stat().st_size
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            try:
                written = 0
                while written < len(content):
                    written += os.write(handle, content[written:])
                self.owing = self.gathering > 0
                if not self.owing:
                    os.fsync(handle)
            except OSError:
                os.ftruncate(handle, size)  # the piece that did fit would spoil the next line
                raise
            finally:
                os.close(handle)
        finally:
            self.lock.release()

    def _under_lock_mend(self) -> list[str]:
        self.lock.acquire()
        try:
            return mend(self.path)
        finally:
            self.lock.release()


class SafeStorage(JournalStorage):
    """Optuna's storage over a journal whose lines are whole.

    Args:
        journal: The file.
    """

    def __init__(self, journal: SafeJournal) -> None:
        super().__init__(journal)
        self.journal = journal


def ends_a_line(path: Path) -> bool:
    """Whether the last byte of a file that is not empty ends a line."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def mend(path: Path) -> list[str]:
    """Take out what is no whole JSON line, after a copy of the file was kept beside it.

    Returns:
        What was done, in words; empty where nothing was amiss.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    bad = [number for number, line in enumerate(lines, 1) if not whole(line)]
    if not bad:
        return []
    copy = path.with_name(f"{path.name}.torn-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    copy.write_bytes(b"".join(lines))
    kept = [line for line in lines if whole(line)]
    part = path.with_name(f"{path.name}.mended")
    part.write_bytes(b"".join(kept))
    os.replace(part, path)
    numbers = ", ".join(map(str, bad[:5])) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
    return [
        f"the journal {path} had a torn line ({numbers} of {len(lines)}); it was taken out, the old file is {copy.name}"
    ]


def whole(line: bytes) -> bool:
    """Whether a line is one JSON object with its end."""
    if not line.endswith(b"\n"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
