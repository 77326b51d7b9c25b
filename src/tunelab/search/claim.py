"""One engine at a time decides what runs next: a kernel lock that no dead process can hold."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def claim(path: Path) -> Iterator[None]:
    """Hold the lock on a file while a trial is counted and taken.

    Args:
        path: The lock file of the study; made where it is missing, and never deleted.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # the kernel lets go of it when the process dies
        yield
    finally:
        os.close(handle)
