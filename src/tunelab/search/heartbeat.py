"""The heartbeat of an engine, and names of processes: is the engine that owns a trial still alive?"""

import os
import socket
import threading
import time
from pathlib import Path

from tunelab.runs.locks import process_identity

HEARTBEAT_INTERVAL = 5.0  # seconds between two heartbeats
HEARTBEAT_TIMEOUT = 90.0  # seconds without one after which an engine on another machine counts as dead


class Heartbeat:
    """The heartbeat of this engine, for engines on other machines: a file that a thread touches regularly.

    Args:
        folder: Folder of the heartbeat files of all engines of the study.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.engine = process_name(os.getpid())
        self.file = heartbeat_file(self.engine, folder)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._touch_regularly, daemon=True)

    def __enter__(self) -> "Heartbeat":
        self.file.touch()
        self.thread.start()
        return self

    def __exit__(self, *fault: object) -> None:
        self.stopped.set()
        self.thread.join()
        self.file.unlink(missing_ok=True)

    def _touch_regularly(self) -> None:
        while not self.stopped.wait(HEARTBEAT_INTERVAL):
            try:
                self.file.touch()
            except OSError:  # a full or missing disk; the next write to the study fails too
                continue


def process_name(process: int) -> str:
    """A unique name of a living process, over all machines and times."""
    return f"{socket.gethostname()}:{process_identity(process) or process}"


def host_of(process: str) -> str:
    """The host in the name of a process."""
    return process.partition(":")[0]


def is_local_process(process: str) -> bool:
    """Whether the process of that name is alive on this machine."""
    host, _, identity = process.partition(":")
    pid = identity.partition(":")[0]
    return host == socket.gethostname() and pid.isdigit() and process_identity(int(pid)) == identity


def is_engine_alive(engine: str, folder: Path) -> bool:
    """Whether an engine is still alive.

    Args:
        engine: Its `process_name`.
        folder: Folder of the heartbeat files.
    """
    if host_of(engine) == socket.gethostname():
        return is_local_process(engine)
    try:
        return time.time() - heartbeat_file(engine, folder).stat().st_mtime < HEARTBEAT_TIMEOUT
    except FileNotFoundError:
        return False


def heartbeat_file(engine: str, folder: Path) -> Path:
    """The file whose modification time is the last heartbeat of an engine."""
    return folder / engine.replace(":", "_")
