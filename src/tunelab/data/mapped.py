"""Files of a run's own that are read through memory maps: made in a temporary folder, gone when the process ends."""

import mmap
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from tunelab.errors import DataError

READS = 1024  # accesses after which the pages looked at are handed back
DROP = getattr(mmap, "MADV_DONTNEED", None)  # unknown on Windows


class Scratch:
    """A temporary folder that goes with this object, or with the process that made it.

    Each process makes its own, so no two ever share or outlive a file, and nothing in it can be stale.  Only a process
    that is killed outright leaves it behind.

    Args:
        parent: Folder to make it in; None takes the system's folder for temporary files.

    Raises:
        DataError: If nothing can be made there.
    """

    def __init__(self, parent: str | Path | None = None) -> None:
        try:
            if parent is not None:
                Path(parent).expanduser().mkdir(parents=True, exist_ok=True)
            self.path = Path(tempfile.mkdtemp(prefix="tunelab-", dir=parent and Path(parent).expanduser()))
        except OSError as fault:
            where = f"data.cache={parent}"
            raise DataError(f"{where}: no copy of a large file can be made there: {fault}; name another") from fault
        weakref.finalize(self, _remove, self.path, os.getpid())


def _remove(path: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked loader worker must leave the files to its parent
        shutil.rmtree(path, ignore_errors=True)


class Mapped:
    """A read-only memory map that keeps few of its pages in this process.

    The system keeps a page that was touched until memory is short.  Handing pages back now and then costs little
    (most stay in the file cache) and keeps the process as small as it really is.

    Args:
        path: The file; may be empty.
        scratch: The folder it lies in, kept as long as the map.
    """

    def __init__(self, path: Path, scratch: Scratch | None = None) -> None:
        self.path, self.scratch, self.reads = path, scratch, 0
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else None

    def view(self) -> memoryview:
        """The bytes of the file, not copied."""
        return memoryview(self.map if self.map is not None else b"")

    def read(self) -> None:
        """Note one access; every so often the pages go back."""
        self.reads += 1
        if self.reads % READS == 0:
            self.drop()

    def drop(self) -> None:
        """Hand all pages back; what is read again comes from the file cache."""
        if self.map is not None and DROP is not None:
            self.map.madvise(DROP)

    def __reduce__(self) -> tuple[Any, ...]:
        return Mapped, (self.path,)  # the folder stays with the process that made it
