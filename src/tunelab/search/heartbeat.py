"""Heartbeat of an engine, and names of processes: does the engine that owns a trial still live?"""

import os
import socket
import threading
import time
from pathlib import Path

from tunelab.runs.locks import process_identity

HEARTBEAT_INTERVAL = 5.0  # seconds between two signs of life
HEARTBEAT_TIMEOUT = 90.0  # seconds without one after which an engine on another machine counts as gone


class Heartbeat:
    """Signs of life of this engine, for engines on other machines.

    Args:
        folder: Where every engine of the study keeps a file.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.owner = process_name(os.getpid())
        self.file = heartbeat_file(self.owner, folder)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Heartbeat":
        self.file.touch()
        self.thread.start()
        return self

    def __exit__(self, *fault: object) -> None:
        self.stopped.set()
        self.thread.join()
        self.file.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self.stopped.wait(HEARTBEAT_INTERVAL):
            try:
                self.file.touch()
            except OSError:  # a full or absent disk: the others may take us for gone, and we find out when we tell
                continue


def process_name(process: int) -> str:
    """A name for a living process that no other process of any machine has, ever."""
    return f"{socket.gethostname()}:{process_identity(process) or process}"


def host_of(owner: str) -> str:
    """The machine of a process by its name."""
    return owner.partition(":")[0]


def is_local_process(owner: str) -> bool:
    """Whether the process of that name lives on this machine."""
    host, _, who = owner.partition(":")
    number = who.partition(":")[0]
    return host == socket.gethostname() and number.isdigit() and process_identity(int(number)) == who


def is_engine_alive(owner: str, folder: Path) -> bool:
    """Whether the engine of that name still lives.

    Args:
        owner: As `owner_of` named it.
        folder: Where engines keep their signs of life.
    """
    if host_of(owner) == socket.gethostname():
        return is_local_process(owner)
    try:
        return time.time() - heartbeat_file(owner, folder).stat().st_mtime < HEARTBEAT_TIMEOUT
    except FileNotFoundError:
        return False


def heartbeat_file(owner: str, folder: Path) -> Path:
    """The file whose time of change is the engine's last sign of life."""
    return folder / owner.replace(":", "_")
