"""The trials that run: who holds which slot and for how long; and stale trials, whose engine is gone, taken over."""

import socket
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from tunelab.errors import TuneLabError
from tunelab.runs.run_dir import RunDirectory
from tunelab.search.heartbeat import host_of, is_engine_alive
from tunelab.search.space import Space
from tunelab.search.study_folder import StudyFolder
from tunelab.search.study_storage import TrialStore
from tunelab.search.trial_outcome import (
    NEVER_STARTED,
    RESUMABLE_FAILURES,
    TrialOutcome,
    implied_exit_status,
    read_outcome,
)
from tunelab.search.trial_process import Executor, Job

DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"


@dataclass
class RunningTrial:
    """A trial at work."""

    number: int
    job: Job
    slot: int
    began: float  # by the clock that never goes back
    timed_out: bool = False


@dataclass
class WorkerPool:
    """Starts trials in free slots and watches them.

    Attributes:
        folder: The study's files.
        command: What starts a training, such as `python train.py`.
        executor: What starts processes.
        slots: More environment variables of each slot.
        owner: Name of this engine.
        notes: The study's record.
        limit: Seconds after which a trial is ended; None for no limit.
    """

    folder: StudyFolder
    command: Sequence[str]
    executor: Executor
    slots: Sequence[Mapping[str, str]]
    owner: str
    notes: TrialStore
    limit: float | None = None
    running: list[RunningTrial] = field(default_factory=list)

    @property
    def numbers(self) -> set[int]:
        """The trials that this engine watches."""
        return {running.number for running in self.running}

    def has_room(self) -> bool:
        """Whether a slot is free."""
        return len(self.running) < len(self.slots)

    def start(self, number: int, overrides: Sequence[str]) -> None:
        """Start a trial in a free slot.

        Raises:
            TuneLabError: If the system cannot; the trial is left for the next command.
        """
        folder, slot = self.folder.trial(number), self._free()
        own = [f"trial.id={number}", f"trial.study={self.folder.root}", f"hydra.run.dir={folder}"]
        self._claim(number, slot)
        self.notes.settle()  # after a power cut, no folder may belong to a trial that nobody knows of
        try:
            job = self.executor.start([*self.command, *overrides, *own], folder, self.slots[slot])
        except OSError as fault:
            raise TuneLabError(
                f"trial {number} could not be started: {fault}. It is not lost: the same command starts it again"
            ) from fault
        self.notes.write(number, process=job.reference)
        self.running.append(RunningTrial(number, job, slot, time.monotonic()))

    def adopt(self, number: int, job: Job, devices: str | None) -> None:
        """Watch a trial that another engine has started.

        Args:
            number: Of the trial.
            job: Its process.
            devices: The accelerators it holds; the slot of the same ones is taken, if it is free.
        """
        slot = self._free(devices)
        self._claim(number, slot)
        self.running.append(RunningTrial(number, job, slot, time.monotonic()))

    def ended(self) -> Iterator[tuple[RunningTrial, int]]:
        """The trials whose process has ended since the last call, each with its exit status."""
        for running in list(self.running):
            status = running.job.poll()
            if status is not None:
                self.running.remove(running)
                yield running, status
            elif self.limit is not None and time.monotonic() - running.began > self.limit and not running.timed_out:
                running.timed_out = True
                running.job.stop()

    def close(self, running: RunningTrial) -> None:
        """Note when a trial that has ended was at work."""
        took = time.monotonic() - running.began
        before = self._sessions(running.number)
        self.notes.write(running.number, sessions=[*before, [time.time() - took, time.time()]])

    def stop(self, *, now: bool = False) -> None:
        """Ask every trial to end at a safe point, or end it at once."""
        for running in self.running:
            running.job.kill() if now else running.job.stop()

    def _claim(self, number: int, slot: int) -> None:
        facts: dict[str, Any] = {"owner": self.owner, "began": time.time()}
        if devices := self.slots[slot].get(DEVICES_VARIABLE):
            facts["devices"] = devices
        self.notes.write(number, **facts)

    def _free(self, devices: str | None = None) -> int:
        taken = {running.slot for running in self.running}
        free = [slot for slot in range(len(self.slots)) if slot not in taken]
        return next((slot for slot in free if devices and self.slots[slot].get(DEVICES_VARIABLE) == devices), free[0])

    def _sessions(self, number: int) -> list[list[float]]:
        found: list[list[float]] = self.notes.facts(number).get("sessions", [])
        return found


@dataclass(frozen=True)
class StaleTrial:
    """A trial to take over; one of `job` and `outcome` is given, or the trial is to be started.

    Attributes:
        trial: As the study has it.
        job: Its training still runs.
        outcome: Its training has ended so.
        resumes: Whether a start goes on from what it left.
    """

    trial: FrozenTrial
    job: Job | None = None
    outcome: TrialOutcome | None = None
    resumes: bool = False


def stale_trials(
    trials: Sequence[FrozenTrial], mine: Collection[int], me: str, folder: StudyFolder
) -> list[FrozenTrial]:
    """The running trials without a living engine.

    Args:
        trials: Every trial of the study.
        mine: Numbers of those that this engine watches.
        me: Name of this engine.
        folder: The study's files.
    """
    found = []
    for trial in trials:
        owner = str(trial.user_attrs.get("owner", ""))
        if trial.state is not TrialState.RUNNING or trial.number in mine:
            continue
        if not owner or owner == me or not is_engine_alive(owner, folder.engines):
            found.append(trial)
    return found


def next_takeover(
    left: Sequence[FrozenTrial], folder: StudyFolder, space: Space, objectives: Sequence[str], executor: Executor
) -> StaleTrial | None:
    """The first of the trials left behind that can be taken over now; None where there is none.

    A training may outlive its engine.  On this machine, and on a cluster, its job is found again.  On another machine
    it cannot be asked, and whoever holds the lock of its run folder is left in peace until the folder falls silent.

    Args:
        left: See `left_behind`.
        folder: The study's files.
        space: What a configuration must hold to be started.
        objectives: Scores that a trial must leave.
        executor: Finds jobs again.
    """
    for trial in left:
        run = folder.trial(trial.number)
        if not space.holds(trial.params) or "overrides" not in trial.user_attrs:
            return StaleTrial(
                trial, outcome=TrialOutcome("failed", (), NEVER_STARTED, "its engine died between asking and starting")
            )
        job = executor.adopt(str(trial.user_attrs.get("process", "")), run)
        if job is not None:
            return StaleTrial(trial, job=job)
        ended = read_outcome(run, implied_exit_status(run), objectives)
        if ended.state != "failed" or ended.kind not in RESUMABLE_FAILURES:
            return StaleTrial(trial, outcome=ended)
        if not RunDirectory(run).is_held():
            return StaleTrial(trial, resumes=(run / "run.json").is_file())
    return None


def stale_hosts(left: Sequence[FrozenTrial]) -> dict[int, str]:
    """The machines of trials left behind on another one, by number."""
    hosts = {trial.number: host_of(str(trial.user_attrs.get("owner", ""))) for trial in left}
    return {number: host for number, host in hosts.items() if host not in ("", socket.gethostname())}
