"""The trials at work: who holds which slot, how long, and what is noted so that another engine could take over."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunelab.errors import TuneLabError
from tunelab.search.folder import StudyFolder
from tunelab.search.jobs import Executor, Job
from tunelab.search.notes import Notes

DEVICES = "CUDA_VISIBLE_DEVICES"


@dataclass
class Running:
    """A trial at work."""

    number: int
    job: Job
    slot: int
    began: float  # by the clock that never goes back
    timed_out: bool = False


@dataclass
class Crew:
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
    notes: Notes
    limit: float | None = None
    running: list[Running] = field(default_factory=list)

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
        self.running.append(Running(number, job, slot, time.monotonic()))

    def adopt(self, number: int, job: Job, devices: str | None) -> None:
        """Watch a trial that another engine has started.

        Args:
            number: Of the trial.
            job: Its process.
            devices: The accelerators it holds; the slot of the same ones is taken, if it is free.
        """
        slot = self._free(devices)
        self._claim(number, slot)
        self.running.append(Running(number, job, slot, time.monotonic()))

    def ended(self) -> Iterator[tuple[Running, int]]:
        """The trials whose process has ended since the last call, each with its exit status."""
        for running in list(self.running):
            status = running.job.poll()
            if status is not None:
                self.running.remove(running)
                yield running, status
            elif self.limit is not None and time.monotonic() - running.began > self.limit and not running.timed_out:
                running.timed_out = True
                running.job.stop()

    def close(self, running: Running) -> None:
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
        if devices := self.slots[slot].get(DEVICES):
            facts["devices"] = devices
        self.notes.write(number, **facts)

    def _free(self, devices: str | None = None) -> int:
        taken = {running.slot for running in self.running}
        free = [slot for slot in range(len(self.slots)) if slot not in taken]
        return next((slot for slot in free if devices and self.slots[slot].get(DEVICES) == devices), free[0])

    def _sessions(self, number: int) -> list[list[float]]:
        found: list[list[float]] = self.notes.facts(number).get("sessions", [])
        return found
