"""Python's search for cycles of garbage, paused while packages load: they make a million objects, none of them garbage.

The searches in between take a fifth of the time until packages are there.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_own_process: list[bool] = []  # holds True in a command of ours


def mark_own_process() -> None:
    """Let `packages_loading` set aside what there is: this process is a command of ours, and holds nothing else."""
    _own_process[:] = [True]


@contextmanager
def searches_paused() -> Iterator[None]:
    """Within it Python looks for no cycles."""
    searches = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searches:
            gc.enable()


@contextmanager
def packages_loading() -> Iterator[None]:
    """Within it Python looks for no cycles; in a process of ours no later search looks at what was loaded here."""
    with searches_paused():
        yield
        if _own_process:
            gc.freeze()
