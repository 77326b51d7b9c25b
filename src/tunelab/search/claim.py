"""One engine at a time decides what runs next: a kernel lock that no dead process can hold."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optuna.storages.journal import JournalFileSymlinkLock

UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
GRACE = 120  # seconds after which a link that a dead process left counts for nothing


@contextmanager
def claim(path: Path) -> Iterator[None]:
    """Hold the lock on a file while a trial is counted and taken.

    On a network disk without kernel locks a symbolic link stands in; one that a dead process left is taken over.

    Args:
        path: The lock file of the study; made where it is missing, and never deleted.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    link = None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)  # the kernel lets go of it when the process dies
        except OSError as fault:
            if fault.errno not in UNKNOWN:
                raise
            link = JournalFileSymlinkLock(str(path), GRACE)
            link.acquire()
        yield
    finally:
        if link is not None:
            link.release()
        os.close(handle)
