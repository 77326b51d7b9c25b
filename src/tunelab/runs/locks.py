"""One writer per directory: a lock file that says who writes, and outlives nobody."""

import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunelab.errors import ConfigError

STALE_SECONDS = 1800.0  # seconds without a sign of life after which the lock of another machine counts as left behind


class FolderLock:
    """The right to write into a folder.

    The file names process, machine and start time.  On this machine the holder is alive if its process id is, with
    the same start time (ids are reused).  A process on another machine cannot be asked, so there the newest file
    of the folder decides: a run that wrote nothing for `SILENCE` seconds is taken for dead.

    Reading and replacing the file happens under a kernel lock on it, so two processes that find the same dead
    holder cannot both take over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def acquire(self) -> None:
        """Take the lock, from a dead holder if need be; taking it twice in one process is one lock.

        Raises:
            ConfigError: If a live process holds it.
        """
        handle = self._open()
        try:
            holder = _parse_holder(os.read(handle, 4096))
            if holder is not None and holder["who"] != _own_identity() and self._alive(holder):
                raise ConfigError(
                    f"another process is writing to {self.path.parent}: process {holder['pid']} on {holder['host']}, "
                    f"since {holder['since']}; two writers would mix two runs. Wait for it, give another "
                    f"hydra.run.dir, or delete {self.path} if you know that process is gone"
                )
            since = datetime.now(UTC).isoformat(timespec="seconds")
            text = json.dumps(
                {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "who": _own_identity()}
            )
            os.ftruncate(handle, 0)
            os.pwrite(handle, text.encode(), 0)
        finally:
            os.close(handle)

    def release(self) -> None:
        """Give the lock back; does nothing if this process does not hold it, so a forked child cannot drop it."""
        if not self.path.exists():
            return
        handle = self._open()
        try:
            holder = _parse_holder(os.read(handle, 4096))
            if holder is not None and holder["who"] == _own_identity():
                self.path.unlink()
        finally:
            os.close(handle)

    def is_held(self) -> bool:
        """Whether a live process holds the lock; takes nothing."""
        with suppress(FileNotFoundError):
            holder = _parse_holder(self.path.read_bytes())
            return holder is not None and self._alive(holder)
        return False

    def _open(self) -> int:
        """The lock file, open and locked, and still the one under its name."""
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            with suppress(OSError):  # a network file system without kernel locks: what the file says must do there
                fcntl.flock(handle, fcntl.LOCK_EX)
            try:
                if os.path.samestat(os.fstat(handle), os.stat(self.path)):
                    return handle
            except FileNotFoundError:
                pass  # released between our open and our lock; a new file is needed
            os.close(handle)

    def _alive(self, holder: dict[str, Any]) -> bool:
        if holder["host"] == socket.gethostname():
            return bool(holder["who"] == process_identity(int(holder["pid"])))
        folder = self.path.parent
        signs = [self.path.stat().st_mtime]
        for file in (*folder.glob("*"), *folder.glob("checkpoints/*")):
            with suppress(FileNotFoundError):  # replaced while we look
                signs.append(file.stat().st_mtime)
        return time.time() - max(signs) < STALE_SECONDS


def _parse_holder(content: bytes) -> dict[str, Any] | None:
    """The holder a lock file names; None where it is new or was torn by a power cut."""
    try:
        holder = json.loads(content)
    except ValueError:
        return None
    return holder if isinstance(holder, dict) and {"pid", "host", "since", "who"} <= holder.keys() else None


def _own_identity() -> str:
    return process_identity(os.getpid()) or ""


def process_identity(process: int) -> str | None:
    """What tells a living process from all others of this machine, ever; None if it does not live."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # alive, of another user
        pass
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return f"{process}"  # no /proc (macOS): the id alone must do
    if fields[0] == "Z":
        return None  # dead, waiting for its parent to notice
    return f"{process}:{fields[19]}:{boot}"  # field 22 of proc(5): start time in clock ticks since boot
