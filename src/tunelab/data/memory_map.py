"""Memory-mapped files in a scratch folder that goes with the process."""

import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from tunelab.errors import DataError
from tunelab.language.translation import translate
from tunelab.runs.locks import lock_handle

SCRATCH_PREFIX = "tunelab-"  # of the folders' names
READS_BEFORE_DROP = 1024  # accesses after which the pages looked at are handed back
MADV_DONTNEED = getattr(mmap, "MADV_DONTNEED", None)  # unknown on Windows


class ScratchDir:
    """A temporary folder that goes with this object, or with the process that made it.

    Each process makes its own, so no two ever share or outlive a file, and nothing in it can be stale or half written.
    A process that is killed outright leaves it behind; the next one takes it away.

    Args:
        parent: Folder to make it in; None takes the system's folder for temporary files.

    Raises:
        DataError: If nothing can be made there.
    """

    def __init__(self, parent: str | Path | None = None) -> None:
        try:
            if parent is not None:
                Path(parent).expanduser().mkdir(parents=True, exist_ok=True)
            self.path = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=parent and Path(parent).expanduser()))
            lock = _lock_folder(self.path)
        except OSError as fault:
            where = f"data.cache={parent}"
            raise DataError(
                translate(
                    "{where}: no copy of a large file can be made there: {fault}; name another",
                    where=where,
                    fault=fault,
                )
            ) from fault
        weakref.finalize(self, _remove_scratch, self.path, lock, os.getpid())
        for other in self.path.parent.glob(f"{SCRATCH_PREFIX}*"):
            _remove_stale(other)

    def make_folder(self, name: str) -> Path:
        """A fresh folder inside."""
        try:
            return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.path))
        except OSError as fault:
            raise self.write_error(fault) from fault

    def open_files(self, folder: str, names: Sequence[str]) -> list[BinaryIO]:
        """Files of these names in a fresh folder inside, open to be written; each knows its path as its `name`."""
        place = self.make_folder(folder)
        try:
            return [(place / name).open("wb", buffering=2**20) for name in names]
        except OSError as fault:
            raise self.write_error(fault) from fault

    def open_unnamed(self) -> IO[bytes]:
        """A file without a name inside, unbuffered: processes that are forked meanwhile must not write it too."""
        try:
            return tempfile.TemporaryFile(dir=self.path, buffering=0)
        except OSError as fault:
            raise self.write_error(fault) from fault

    def write_error(self, fault: OSError) -> DataError:
        """The error for a file in the folder that cannot be written."""
        free = shutil.disk_usage(self.path).free / 10**6
        return DataError(
            translate(
                "the copy of a large file cannot be written to {folder}: {value}; {free:,.0f} MB are "
                "free there. Name a folder with more by data.cache=FOLDER, or raise data.in_memory "
                "(megabytes) above the size of the file to hold it in memory",
                folder=self.path.parent,
                value=fault.strerror or fault,
                free=free,
            )
        )


def _lock_folder(folder: Path) -> int:
    """Lock a folder as long as this process or a child of it lives; the lock file appears locked."""
    fresh = folder / "lock.new"
    handle = os.open(fresh, os.O_RDWR | os.O_CREAT, 0o600)
    with suppress(OSError):  # a network file system without kernel locks: the folder is never taken for abandoned
        lock_handle(handle)
        fresh.rename(folder / "lock")
    return handle


def _remove_stale(folder: Path) -> None:
    """Remove a folder whose process is gone."""
    with suppress(OSError):  # none of ours, held, or taken away meanwhile
        handle = os.open(folder / "lock", os.O_RDWR)
        try:
            if lock_handle(handle, wait=False):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)


def _remove_scratch(path: Path, lock: int, owner: int) -> None:
    os.close(lock)
    if os.getpid() == owner:  # a forked loader worker must leave the files to its parent
        shutil.rmtree(path, ignore_errors=True)


class MemoryMap:
    """A read-only memory map that keeps few of its pages in this process.

    The system keeps a page that was touched until memory is short.  Handing pages back now and then costs little
    (most stay in the file cache) and keeps the process as small as it really is.

    Args:
        path: The file; may be empty.
        scratch: The folder it lies in, kept as long as the map.
    """

    def __init__(self, path: Path, scratch: ScratchDir | None = None) -> None:
        self.path, self.scratch, self.reads = path, scratch, 0
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else None

    def view(self) -> memoryview:
        """The bytes of the file, not copied."""
        return memoryview(self.map if self.map is not None else b"")

    def count_access(self, count: int = 1) -> None:
        """Note one access, or several; every so often the pages go back."""
        self.reads += count
        if self.reads >= READS_BEFORE_DROP:
            self.reads = 0
            self.release_pages()

    def release_pages(self) -> None:
        """Hand all pages back; what is read again comes from the file cache."""
        if self.map is not None and MADV_DONTNEED is not None:
            self.map.madvise(MADV_DONTNEED)

    def __reduce__(self) -> tuple[Any, ...]:
        return MemoryMap, (self.path,)  # the folder stays with the process that made it
