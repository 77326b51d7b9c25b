"""The pool of running trials, one per slot; and stale trials, whose engine is dead, to be taken over."""

import socket
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from tunelab.config.plugins import refuse_process_keys
from tunelab.config.quoting import path_word
from tunelab.errors import TuneLabError
from tunelab.language.translation import translate
from tunelab.runs.run_dir import RunDirectory
from tunelab.runs.study_folder import StudyFolder
from tunelab.search.heartbeat import host_of, is_engine_alive
from tunelab.search.space import Space
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
    """A running trial."""

    number: int
    job: Job
    slot: int
    started_at: float  # by the monotonic clock
    timed_out: bool = False


@dataclass
class WorkerPool:
    """Starts trials in free slots and polls them.

    Attributes:
        folder: The study's files.
        command: The command of a training, such as `python train.py`.
        executor: Starts the processes.
        slots: Additional environment variables of each slot.
        engine: Name of this engine.
        store: The trials of the study.
        timeout: Seconds after which a trial is stopped; None for no limit.
        running: The running trials.
    """

    folder: StudyFolder
    command: Sequence[str]
    executor: Executor
    slots: Sequence[Mapping[str, str]]
    engine: str
    store: TrialStore
    timeout: float | None = None
    running: list[RunningTrial] = field(default_factory=list)

    @property
    def numbers(self) -> set[int]:
        """Numbers of the running trials."""
        return {running.number for running in self.running}

    def has_room(self) -> bool:
        """Whether a slot is free."""
        return len(self.running) < len(self.slots)

    def is_ready(self) -> bool:
        """Whether a trial can be started in a free slot now; False while its executor prepares for that."""
        return self.executor.is_ready(self.slots[self._free_slot()])

    def start(self, number: int, overrides: Sequence[str]) -> None:
        """Start a trial in a free slot.

        Raises:
            TuneLabError: If the process cannot be started; the next command starts the trial again.
        """
        folder, slot = self.folder.trial_folder(number), self._free_slot()
        trial = [f"trial.id={number}", path_word("trial.study", self.folder.root), path_word("hydra.run.dir", folder)]
        self._record_owner(number, slot)
        self.store.sync()  # after a power cut, no folder may belong to an unrecorded trial
        try:
            job = self.executor.start(
                [*self.command, *refuse_process_keys(overrides), *trial], folder, self.slots[slot]
            )
        except OSError as fault:
            raise TuneLabError(
                translate(
                    "trial {number} could not be started: {fault}. It is not lost: the same command starts it again",
                    number=number,
                    fault=fault,
                )
            ) from fault
        self.store.set_facts(number, process=job.reference)
        self.running.append(RunningTrial(number, job, slot, time.monotonic()))

    def adopt(self, number: int, job: Job, devices: str | None) -> None:
        """Take over a running trial of a dead engine.

        Args:
            number: Number of the trial.
            job: Its process.
            devices: Its accelerators; it gets the slot with the same ones, if that is free.
        """
        slot = self._free_slot(devices)
        self._record_owner(number, slot)
        self.running.append(RunningTrial(number, job, slot, time.monotonic()))

    def pop_ended(self) -> Iterator[tuple[RunningTrial, int]]:
        """Remove and yield the trials whose process has ended, each with its exit status; stop those out of time."""
        for running in list(self.running):
            status = running.job.poll()
            if status is not None:
                self.running.remove(running)
                yield running, status
            elif (
                self.timeout is not None
                and time.monotonic() - running.started_at > self.timeout
                and not running.timed_out
            ):
                running.timed_out = True
                running.job.stop()

    def record_session(self, running: RunningTrial) -> None:
        """Record start and end of a session of a trial that has ended."""
        seconds = time.monotonic() - running.started_at
        sessions = self.store.facts(running.number).get("sessions", [])
        self.store.set_facts(running.number, sessions=[*sessions, [time.time() - seconds, time.time()]])

    def stop(self, *, now: bool = False) -> None:
        """Stop every trial after its next checkpoint, or kill it now."""
        for running in self.running:
            running.job.kill() if now else running.job.stop()

    def _record_owner(self, number: int, slot: int) -> None:
        facts: dict[str, Any] = {"owner": self.engine, "began": time.time()}
        if devices := self.slots[slot].get(DEVICES_VARIABLE):
            facts["devices"] = devices
        self.store.set_facts(number, **facts)

    def _free_slot(self, devices: str | None = None) -> int:
        taken = {running.slot for running in self.running}
        free = [slot for slot in range(len(self.slots)) if slot not in taken]
        return next((slot for slot in free if devices and self.slots[slot].get(DEVICES_VARIABLE) == devices), free[0])


@dataclass(frozen=True)
class StaleTrial:
    """A trial to take over: watch `job`, or record `outcome`, or else start it.

    Attributes:
        trial: The trial of the study.
        job: Its training, if it still runs.
        outcome: Its outcome, if its training has ended.
        resumes: Whether it is started from its last checkpoint.
    """

    trial: FrozenTrial
    job: Job | None = None
    outcome: TrialOutcome | None = None
    resumes: bool = False


def stale_trials(
    trials: Sequence[FrozenTrial], running: Collection[int], engine: str, folder: StudyFolder
) -> list[FrozenTrial]:
    """The running trials without a living engine.

    Args:
        trials: Every trial of the study.
        running: Numbers of the running trials of this engine.
        engine: Name of this engine.
        folder: The study's files.
    """
    stale = []
    for trial in trials:
        owner = str(trial.user_attrs.get("owner", ""))
        if trial.state is not TrialState.RUNNING or trial.number in running:
            continue
        if not owner or owner == engine or not is_engine_alive(owner, folder.heartbeats):
            stale.append(trial)
    return stale


def next_takeover(
    stale: Sequence[FrozenTrial], folder: StudyFolder, space: Space, objectives: Sequence[str], executor: Executor
) -> StaleTrial | None:
    """The first stale trial that can be taken over now; None where there is none.

    A training may outlive its engine.  On this machine, and on a cluster, its job is adopted.  On another machine it
    is out of reach, and is taken over once nothing has changed in its locked run directory for a while.

    Args:
        stale: See `stale_trials`.
        folder: The study's files.
        space: Must contain the configuration of a trial that is started.
        objectives: Scores that a trial must have.
        executor: Adopts jobs.
    """
    for trial in stale:
        run = folder.trial_folder(trial.number)
        if not space.contains(trial.params) or "overrides" not in trial.user_attrs:
            return StaleTrial(
                trial, outcome=TrialOutcome("failed", (), NEVER_STARTED, "its engine died before it was started")
            )
        job = executor.adopt(str(trial.user_attrs.get("process", "")), run)
        if job is not None:
            return StaleTrial(trial, job=job)
        outcome = read_outcome(run, implied_exit_status(run), objectives)
        if outcome.state != "failed" or outcome.failure_kind not in RESUMABLE_FAILURES:
            return StaleTrial(trial, outcome=outcome)
        if not RunDirectory(run).is_held():
            return StaleTrial(trial, resumes=RunDirectory(run).exists())
    return None


def remote_hosts(stale: Sequence[FrozenTrial]) -> dict[int, str]:
    """The hosts of stale trials of other machines, by trial number."""
    hosts = {trial.number: host_of(str(trial.user_attrs.get("owner", ""))) for trial in stale}
    return {number: host for number, host in hosts.items() if host not in ("", socket.gethostname())}
