"""Locks: the kernel lock on an open file, an exclusive lock on a path, and the lock of a directory with one writer.

Kernel locks end with their process, so nothing is left to clean up after a crash.
"""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.runs.atomic_files import open_unlinked

STALE_SECONDS = 1800.0  # seconds without a change in the folder after which the lock of another machine is stale
NO_LOCK_ERRORS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
LINK_GRACE = 120  # seconds after which the symbolic link of a dead process is taken over


def lock_handle(handle: int, *, wait: bool = True) -> bool:
    """Take the kernel lock on an open file; False if another process holds it and we do not wait.

    The lock lasts until every copy of the handle is closed, in this process and in forked children.

    Raises:
        OSError: On a file system without kernel locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold the lock on a path, waiting for it.

    On a network disk without kernel locks a symbolic link stands in; that of a dead process is taken over.

    Args:
        path: The lock file; created where it is missing, and never deleted.
    """
    handle, link = open_unlinked(path, os.O_RDWR | os.O_CREAT), None
    try:
        try:
            lock_handle(handle)
        except OSError as fault:
            if fault.errno not in NO_LOCK_ERRORS:
                raise
            from optuna.storages.journal import JournalFileSymlinkLock  # too slow to import for what is rarely needed

            link = JournalFileSymlinkLock(str(path), LINK_GRACE)
            link.acquire()
        yield
    finally:
        if link is not None:
            link.release()
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock on a path just now; False where nobody can tell."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDWR)
        try:
            return not lock_handle(handle, wait=False)
        finally:
            os.close(handle)
    return False


class FolderLock:
    """The lock of a folder with one writer, for as long as a run takes.

    The file names process, machine and start time of the holder.  On this machine the holder is alive if its process
    id is, with the same start time (ids are reused).  For a holder on another machine the newest file of the folder
    decides: after `STALE_SECONDS` without a change it counts as dead.

    The file is read and replaced under a kernel lock, so two processes that see the same dead holder cannot both take
    over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def acquire(self) -> int | None:
        """Take the lock, also from a dead holder; taking it again in the same process does nothing.

        Returns:
            The process id of the dead holder that it was taken from, so that what it left half-written can go.

        Raises:
            ConfigError: If a live process holds it.
        """
        handle = self._open()
        try:
            holder = _parse_holder(os.read(handle, 4096))
            if holder is not None and holder["who"] != _own_identity() and self._is_alive(holder):
                raise ConfigError(
                    translate(
                        "another process is writing to {folder}: process {pid} on {host}, since {since}; two "
                        "writers would mix two runs. Wait for it, give another hydra.run.dir, or delete "
                        "{path} if you know that process is gone",
                        folder=self.path.parent,
                        pid=holder["pid"],
                        host=holder["host"],
                        since=holder["since"],
                        path=self.path,
                    )
                )
            since = datetime.now(UTC).isoformat(timespec="seconds")
            text = json.dumps(
                {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "who": _own_identity()}
            )
            os.ftruncate(handle, 0)
            os.pwrite(handle, text.encode(), 0)
            return int(holder["pid"]) if holder is not None and holder["who"] != _own_identity() else None
        finally:
            os.close(handle)

    def release(self) -> None:
        """Release the lock; does nothing if this process does not hold it, so a forked child cannot release it."""
        if not os.path.lexists(self.path) or self.path.is_symlink():
            return
        handle = self._open()
        try:
            holder = _parse_holder(os.read(handle, 4096))
            if holder is not None and holder["who"] == _own_identity():
                self.path.unlink()
        finally:
            os.close(handle)

    def is_held(self) -> bool:
        """Whether a live process holds the lock."""
        with suppress(FileNotFoundError):
            holder = _parse_holder(self.path.read_bytes())
            return holder is not None and self._is_alive(holder)
        return False

    def _open(self) -> int:
        """A handle of the lock file, open and locked, and still the file under its name."""
        while True:
            handle = open_unlinked(self.path, os.O_RDWR | os.O_CREAT)
            with suppress(OSError):  # a network disk without kernel locks: the content of the file must do
                lock_handle(handle)
            try:
                if os.path.samestat(os.fstat(handle), os.lstat(self.path)):
                    return handle
            except FileNotFoundError:
                pass  # released between our open and our lock; a new file is needed
            os.close(handle)

    def _is_alive(self, holder: dict[str, Any]) -> bool:
        if holder["host"] == socket.gethostname():
            return bool(holder["who"] == process_identity(int(holder["pid"])))
        folder = self.path.parent
        changes = [self.path.stat().st_mtime]
        for file in (*folder.glob("*"), *folder.glob("checkpoints/*")):
            with suppress(FileNotFoundError):  # replaced meanwhile
                changes.append(file.stat().st_mtime)
        return time.time() - max(changes) < STALE_SECONDS


def _parse_holder(content: bytes) -> dict[str, Any] | None:
    """The holder that a lock file names; None where the file is new or was torn by a power cut."""
    try:
        holder = json.loads(content)
    except (ValueError, RecursionError):
        return None
    complete = isinstance(holder, dict) and {"pid", "host", "since", "who"} <= holder.keys()
    return holder if complete and str(holder["pid"]).isdigit() else None


def _own_identity() -> str:
    return process_identity(os.getpid()) or ""


def process_identity(process: int) -> str | None:
    """A text that identifies a living process of this machine for ever, as ids are reused; None if it is dead."""
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
        return f"{process}"  # no /proc (macOS): only the id is known
    if fields[0] == "Z":
        return None  # a zombie
    return f"{process}:{fields[19]}:{boot}"  # field 22 of proc(5): start time in clock ticks since boot
