"""The process of a trial: started with the devices and threads of its slot, watched, stopped, found again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from tunelab.errors import ConfigError
from tunelab.runs.locks import process_identity
from tunelab.search.heartbeat import is_local_process, process_name
from tunelab.search.trial_outcome import TRIAL_LOG, implied_exit_status

STOP_GRACE = 60.0  # seconds that a trial has to reach a safe point before it is killed
LAUNCHER_VARIABLES = (
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

    @property
    def reference(self) -> str:
        """What another engine finds it by, should this one die; empty where nothing does."""

    def poll(self) -> int | None:
        """The exit status once it has ended, negative for a signal; None while it runs."""

    def stop(self) -> None:
        """Ask it to end at a safe point; once the grace is over, end it."""

    def kill(self) -> None:
        """End it at once; it goes on from its last checkpoint."""


class Executor(Protocol):
    """What starts jobs."""

    def start(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Job:
        """Start a trial whose run folder is `folder`, with more environment variables than ours."""

    def adopt(self, reference: str, folder: Path) -> Job | None:
        """The job that a dead engine left under this reference; None if it is over, or cannot be found from here."""


class LocalJob:
    """A process of this machine, in a group of its own: it and every rank that it starts end together."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
        with (folder / TRIAL_LOG).open("ab") as log:
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**inherited, **environment},
                start_new_session=True,
            )
        self.reference = process_name(self.process.pid)
        self.asked: float | None = None

    def poll(self) -> int | None:
        found = self.process.poll()
        if found is not None:
            # what outlives the main process is of no use: a rank that waits for a dead one would hold its device
            self._signal(signal.SIGKILL if found else signal.SIGTERM)
        elif self.asked is not None and time.monotonic() - self.asked > STOP_GRACE:
            self.kill()
        return found

    def stop(self) -> None:
        if self.asked is None:
            self.asked = time.monotonic()
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # it ended meanwhile
            os.killpg(self.process.pid, number)


class AdoptedJob:
    """A process that another engine started and left behind: it cannot be waited for, only looked at."""

    def __init__(self, reference: str, folder: Path) -> None:
        self.reference, self.folder = reference, folder
        self.who = reference.partition(":")[2]
        self.number = int(self.who.partition(":")[0])
        self.asked: float | None = None

    def poll(self) -> int | None:
        if process_identity(self.number) != self.who:
            return implied_exit_status(self.folder)
        if self.asked is not None and time.monotonic() - self.asked > STOP_GRACE:
            self.kill()
        return None

    def stop(self) -> None:
        if self.asked is None:
            self.asked = time.monotonic()
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if process_identity(self.number) == self.who:
            with suppress(ProcessLookupError):
                os.killpg(self.number, number)


class LocalExecutor:
    """Starts processes on this machine."""

    def start(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Job:
        return LocalJob(command, folder, environment)

    def adopt(self, reference: str, folder: Path) -> Job | None:
        found = reference if is_local_process(reference) else find_process(folder)
        return AdoptedJob(found, folder) if found else None


def train_command() -> list[str]:
    """What starts a training like this very process."""
    return [sys.executable, sys.argv[0]]


def find_process(folder: Path) -> str | None:
    """The process of this machine that trains in a folder, found by its command line: its engine may have died between
    starting it and noting it down.
    """
    wanted = f"hydra.run.dir={folder}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            number = int(entry.name)
            if wanted in (entry / "cmdline").read_bytes().split(b"\0") and os.getpgid(number) == number:
                return process_name(number)
    return None


def slot_environments(slots: int, devices_per_trial: int, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """The environment variables of each slot.

    Args:
        slots: Trials at a time.
        devices_per_trial: GPUs of one trial.
        environment: Ours; what it says of devices and threads holds.

    Raises:
        ConfigError: If there are GPUs, and fewer than the slots ask for.
    """
    found = visible_gpus(environment)
    if found and slots * devices_per_trial > len(found):
        raise ConfigError(
            f"search.slots={slots} with search.devices_per_trial={devices_per_trial} needs {slots * devices_per_trial} "
            f"GPUs and {len(found)} are there; two trials on one GPU would fight over its memory. Lower search.slots, "
            "or set search.devices_per_trial=0 to let them share"
        )
    threads = max(1, (os.cpu_count() or 1) // slots)
    made = []
    for slot in range(slots):
        mine = found[slot * devices_per_trial : (slot + 1) * devices_per_trial]
        variables = {"CUDA_VISIBLE_DEVICES": ",".join(mine)} if mine else {}
        if slots > 1 and "OMP_NUM_THREADS" not in environment:
            variables["OMP_NUM_THREADS"] = str(threads)  # or each would take every core
        made.append(variables)
    return made


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that trials may use, as CUDA names them."""
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [name for name in environment["CUDA_VISIBLE_DEVICES"].split(",") if name]
    return [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]
