"""A trial's process: started in a slot, watched, ended."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tunelab.lock import identity
from tunelab.search.outcome import LOG

GRACE = 60.0  # seconds that a trial has to reach a safe point before it is killed
LAUNCHED = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "NODE_RANK",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "PL_GLOBAL_SEED",
)


class Job(Protocol):
    """What runs a trial."""

    def poll(self) -> int | None:
        """The exit status once it has ended, negative for a signal; None while it runs."""

    def stop(self) -> None:
        """Ask it to end at a safe point; once the grace is over, end it."""


class Executor(Protocol):
    """What starts jobs."""

    def start(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Job:
        """Start a trial whose run folder is `folder`, with more environment variables than ours."""


class LocalJob:
    """A process of this machine, in a group of its own: it and every rank that it starts end together."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if name not in LAUNCHED}
        with (folder / LOG).open("ab") as log:
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**inherited, **environment},
                start_new_session=True,
            )
        self.asked: float | None = None

    def poll(self) -> int | None:
        found = self.process.poll()
        if found is None and self.asked is not None and time.monotonic() - self.asked > GRACE:
            self._signal(signal.SIGKILL)
        return found

    def stop(self) -> None:
        if self.asked is None:
            self.asked = time.monotonic()
            self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:  # it ended meanwhile
            return


class AdoptedJob:
    """A process that another engine started and left behind: it cannot be waited for, only looked at."""

    def __init__(self, who: str) -> None:
        self.number, self.who = int(who.partition(":")[0]), who
        self.asked: float | None = None

    def poll(self) -> int | None:
        if identity(self.number) != self.who:
            return 0  # how it ended stands in its folder
        if self.asked is not None and time.monotonic() - self.asked > GRACE:
            os.killpg(self.number, signal.SIGKILL)
        return None

    def stop(self) -> None:
        if self.asked is None and identity(self.number) == self.who:
            self.asked = time.monotonic()
            os.killpg(self.number, signal.SIGTERM)


class LocalExecutor:
    """Starts processes on this machine."""

    def start(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Job:
        return LocalJob(command, folder, environment)
