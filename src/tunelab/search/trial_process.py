"""The process of a trial: started with the devices and threads of its slot, polled, stopped, adopted."""

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from typing_extensions import override

from tunelab.config.quoting import path_word
from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.runs.launcher import LAUNCHER_MARKS
from tunelab.runs.locks import process_identity
from tunelab.search.heartbeat import is_local_process, process_name
from tunelab.search.trial_outcome import implied_exit_status, open_log

POLL_SECONDS = 0.02  # between two looks at a process
STOP_GRACE = 60.0  # seconds that a trial has to write a checkpoint before it is killed
LAUNCHER_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "NODE_RANK",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    *LAUNCHER_MARKS,
    "SLURM_PROCID",
    "PL_GLOBAL_SEED",
    "WANDB_RUN_ID",  # of one run: trials would be merged into it
)


class Job(Protocol):
    """A running trial."""

    @property
    def reference(self) -> str:
        """Name under which another engine can adopt it; empty where none can."""

    def poll(self) -> int | None:
        """The exit status once it has ended, negative for a signal; None while it runs."""

    def stop(self) -> None:
        """Let it write a checkpoint and exit; kill it after `STOP_GRACE` seconds."""

    def kill(self) -> None:
        """Kill it; it can be resumed from its last checkpoint."""


class Executor(ABC):
    """Starts jobs."""

    def is_ready(self, environment: Mapping[str, str]) -> bool:
        """Whether a trial with these additional variables can be started now; False while that is being prepared."""
        return True

    def close(self) -> None:
        """End what it keeps beside the jobs."""

    def run(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> int:
        """The exit status of a training that is started and waited for; a signal to us stops it too."""
        while not self.is_ready(environment):
            time.sleep(POLL_SECONDS)
        job = self.start(command, folder, environment)
        try:
            while (status := job.poll()) is None:
                time.sleep(POLL_SECONDS)
        except BaseException:
            job.stop()
            while job.poll() is None:
                time.sleep(POLL_SECONDS)
            raise
        return status

    @abstractmethod
    def start(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Job:
        """Start a trial in the run directory `folder`, with additional environment variables."""

    @abstractmethod
    def adopt(self, reference: str, folder: Path) -> Job | None:
        """The job that a dead engine left under this reference; None if it has ended, or is out of reach."""


class ProcessJob(ABC):
    """A process of this machine in a process group of its own, so that it and all its ranks end together."""

    def __init__(self, pid: int, reference: str) -> None:
        self.pid, self.reference = pid, reference
        self.stop_requested_at: float | None = None

    @abstractmethod
    def poll(self) -> int | None:
        """As `Job.poll`; kills a process whose time to stop is over."""

    def stop(self) -> None:
        if self.stop_requested_at is None:
            self.stop_requested_at = time.monotonic()
            self.signal_group(signal.SIGTERM)

    def kill(self) -> None:
        self.signal_group(signal.SIGKILL)

    def kill_if_overdue(self) -> None:
        """Kill it where it was to stop and has not, `STOP_GRACE` seconds later."""
        if self.stop_requested_at is not None and time.monotonic() - self.stop_requested_at > STOP_GRACE:
            self.kill()

    def signal_group(self, number: int) -> None:
        """Send a signal to the process and its ranks, as far as they still run."""
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.killpg(self.pid, number)


class LocalJob(ProcessJob):
    """A process that this one has started."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with open_log(folder) as log:
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=inherited_environment(environment),
                start_new_session=True,
            )
        super().__init__(self.process.pid, process_name(self.process.pid))

    @override
    def poll(self) -> int | None:
        status = self.process.poll()
        if status is None:
            self.kill_if_overdue()
        else:  # end what outlives the main process: a rank that waits for a dead one would hold its device
            self.signal_group(signal.SIGKILL if status else signal.SIGTERM)
        return status


class AdoptedJob(ProcessJob):
    """A process that a dead engine started: no child of ours, so it can be polled but not waited for."""

    def __init__(self, reference: str, folder: Path) -> None:
        self.folder, self.identity = folder, reference.partition(":")[2]
        super().__init__(int(self.identity.partition(":")[0]), reference)

    @override
    def poll(self) -> int | None:
        if not self.is_alive:
            return implied_exit_status(self.folder)
        self.kill_if_overdue()
        return None

    @override
    def signal_group(self, number: int) -> None:
        if self.is_alive:
            super().signal_group(number)

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs; another one may have its number by now."""
        return process_identity(self.pid) == self.identity


class LocalExecutor(Executor):
    """Starts processes on this machine."""

    @override
    def start(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Job:
        return LocalJob(command, folder, environment)

    @override
    def adopt(self, reference: str, folder: Path) -> Job | None:
        process = reference if is_local_process(reference) else find_process(folder)
        return AdoptedJob(process, folder) if process else None


def inherited_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a trial: those of this process but for a launcher's, and additional ones."""
    inherited = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
    return {**inherited, **environment}


def find_process(folder: Path) -> str | None:
    """The process of this machine that trains in a folder, identified by its command line.

    Its engine may have died between starting it and recording its name.
    """
    argument = path_word("hydra.run.dir", folder).encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            pid = int(entry.name)
            if argument in (entry / "cmdline").read_bytes().split(b"\0") and os.getpgid(pid) == pid:
                return process_name(pid)
    return None


def slot_environments(
    parallel_trials: int, devices_per_trial: int, environment: Mapping[str, str]
) -> list[dict[str, str]]:
    """The additional environment variables of each slot: its GPUs and its number of threads.

    Args:
        parallel_trials: Number of slots.
        devices_per_trial: GPUs of one trial.
        environment: Variables of this process; its choice of devices and threads is respected.

    Raises:
        ConfigError: If there are GPUs, and fewer than the slots need.
    """
    gpus, needed = visible_gpus(environment), parallel_trials * devices_per_trial
    if gpus and needed > len(gpus):
        raise ConfigError(
            translate(
                "search.parallel_trials={parallel_trials} with "
                "search.devices_per_trial={devices_per_trial} needs {needed} [GPU|GPUs] and {count} are "
                "there; two trials on one GPU would compete for its memory. Lower "
                "search.parallel_trials, or set search.devices_per_trial=0 to let them share",
                parallel_trials=parallel_trials,
                devices_per_trial=devices_per_trial,
                needed=needed,
                count=len(gpus),
            )
        )
    threads = max(1, (os.cpu_count() or 1) // parallel_trials)
    environments = []
    for slot in range(parallel_trials):
        devices = gpus[slot * devices_per_trial : (slot + 1) * devices_per_trial]
        variables = {"CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices else {}
        if parallel_trials > 1 and "OMP_NUM_THREADS" not in environment:
            variables["OMP_NUM_THREADS"] = str(threads)  # or each would take every core
        environments.append(variables)
    return environments


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that trials may use, as CUDA names them."""
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [name for name in environment["CUDA_VISIBLE_DEVICES"].split(",") if name]
    return [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]
