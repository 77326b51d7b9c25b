"""A function over many parts of the data on every core: forked processes, results in order.

Workers share what is loaded already, so that they start in milliseconds and take little memory of their own.  Where no
process can be forked safely (other threads, other systems), or one core is all there is, the same function runs here.
"""

import os
import pickle
import signal
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, Final, TypeVar

from tunelab.runs.garbage import searches_paused

T = TypeVar("T")
S = TypeVar("S")
MAX_WORKERS: Final = 8
HEADER: Final = struct.Struct("<?Q")  # whether a result follows or a fault, and how many bytes


def worker_count() -> int:
    """Processes that may work on the data at once: 1 where none can be forked.

    OMP_NUM_THREADS, which a search sets for each of its slots, bounds them as it bounds threads.
    """
    if not sys.platform.startswith("linux") or threading.active_count() > 1:
        return 1
    cores = len(os.sched_getaffinity(0)) // max(1, _positive("LOCAL_WORLD_SIZE", 1))
    return max(1, min(MAX_WORKERS, cores, _positive("OMP_NUM_THREADS", MAX_WORKERS)))


def _positive(variable: str, otherwise: int) -> int:
    """The number that an environment variable holds; `otherwise` where it holds none."""
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() and int(text) > 0 else otherwise


def map_parts(function: Callable[[T], S], parts: Sequence[T], workers: int | None = None) -> Iterator[S]:
    """The results of a function for each part, in order; a fault in one is raised when its turn comes.

    Args:
        function: Depends on nothing that another part changes, and starts no threads; its results can be pickled.
        parts: What it is called with.
        workers: Processes; None for as many as this machine has cores.
    """
    count = min(worker_count() if workers is None else workers, len(parts))
    if count < 2:
        yield from (_without_collections(function, part) for part in parts)
        return
    processes = [_Worker(function, parts[start::count]) for start in range(count)]
    try:
        for place, part in enumerate(parts):
            yield processes[place % count].result(function, part)
    finally:
        for process in processes:
            process.close()


class _Worker:
    """A forked process that works through its parts and sends each result."""

    def __init__(self, function: Callable[[Any], Any], parts: Sequence[Any]) -> None:
        read_end, write_end = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(read_end)
                with open(write_end, "wb", buffering=2**20) as sink:
                    _send_results(function, parts, sink)
                status = 0
            finally:  # whatever came: nothing that belongs to the parent may run here, no handler, no clean-up
                os._exit(status)
        os.close(write_end)
        self.source: BinaryIO = open(read_end, "rb", buffering=2**20)  # noqa: SIM115  # closed in `close`

    def result(self, function: Callable[[Any], Any], part: Any) -> Any:
        """The next result.  Of a process that died on the way, as where memory is short, the part is done here."""
        head = self.source.read(HEADER.size)
        size = HEADER.unpack(head)[1] if len(head) == HEADER.size else 0
        body = self.source.read(size)
        if not size or len(body) < size:
            return function(part)
        try:
            value = pickle.loads(body)  # from a process of our own
        except Exception:  # a fault that can be sent but not be made again
            return function(part)
        if HEADER.unpack(head)[0]:
            return value
        raise value

    def close(self) -> None:
        """End the process, wherever it stands."""
        self.source.close()
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)  # where it stands; it has nothing to leave behind
            os.waitpid(self.pid, 0)


def _without_collections(function: Callable[[T], S], part: T) -> S:
    """The result for one part; the many small objects it makes on the way hold no cycles that are worth a search."""
    with searches_paused():
        return function(part)


def _send_results(function: Callable[[Any], Any], parts: Sequence[Any], sink: BinaryIO) -> None:
    for part in parts:
        try:
            body, good = pickle.dumps(_without_collections(function, part), pickle.HIGHEST_PROTOCOL), True
        except Exception as fault:
            body, good = pickle.dumps(fault), False
        sink.write(HEADER.pack(good, len(body)))
        sink.write(body)
        sink.flush()
