"""Whose trial is it, and does that engine still live?"""

import os
import socket
import threading
import time
from pathlib import Path

from tunelab.lock import identity

BEAT = 5.0  # seconds between two signs of life
SILENCE = 90.0  # seconds without one after which an engine on another machine counts as gone


class Heart:
    """Signs of life of this engine, for engines on other machines.

    Args:
        folder: Where every engine of the study keeps a file.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.owner = owner_of(os.getpid())
        self.file = folder / self.owner.replace(":", "_")
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Heart":
        self.file.touch()
        self.thread.start()
        return self

    def __exit__(self, *fault: object) -> None:
        self.stopped.set()
        self.thread.join()
        self.file.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self.stopped.wait(BEAT):
            try:
                self.file.touch()
            except OSError:  # a full or absent disk: the others may take us for gone, and we find out when we tell
                continue


def owner_of(process: int) -> str:
    """A name for a living process that no other process of any machine has, ever."""
    return f"{socket.gethostname()}:{identity(process) or process}"


def alive(owner: str, folder: Path) -> bool:
    """Whether the engine of that name still lives.

    Args:
        owner: As `owner_of` named it.
        folder: Where engines keep their signs of life.
    """
    host, _, who = owner.partition(":")
    if host == socket.gethostname():
        number = who.partition(":")[0]
        return number.isdigit() and identity(int(number)) == who
    sign = folder / owner.replace(":", "_")
    try:
        return time.time() - sign.stat().st_mtime < SILENCE
    except FileNotFoundError:
        return False
