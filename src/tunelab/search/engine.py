"""The engine of every search: ask, start a training, watch, tell.

Several engines may work on one study, on one machine or on many that share a disk.  Whoever decides what runs next
holds the study's claim, so no trial is started twice and none is counted twice.  An engine that dies leaves its trials
marked as running; the next one takes them over: a process that still runs is watched to its end, one that is gone goes
on from its last checkpoint.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from tunelab.errors import TuneLabError
from tunelab.search.claim import claim
from tunelab.search.jobs import AdoptedJob, Executor, Job
from tunelab.search.orphans import orphan
from tunelab.search.outcome import Outcome, read_outcome
from tunelab.search.owner import Heart, owner_of
from tunelab.search.plan import Plan
from tunelab.search.proposals import Proposals, counted, retried
from tunelab.search.space import Params
from tunelab.search.study import StudyFolder

POLL = 0.05  # seconds between two looks at the running trials
FIRST_FAILURES = 3  # trials in a row that may fail by their settings before the search is given up
STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass
class Running:
    """A trial at work."""

    number: int
    params: Params
    job: Job
    slot: int
    began: float
    timed_out: bool = False


@dataclass
class Engine:
    """Runs a search to its end.

    Attributes:
        folder: The study's files.
        study: Optuna's record.
        storage: Where it is kept.
        name: Of the study in its storage.
        proposals: What is tried next.
        plan: How to search.
        objectives: Scores that a trial must leave.
        command: What starts a training, such as `python train.py`.
        fixed: Overrides that every trial has.
        executor: What starts processes.
        slots: More environment variables of each slot.
        heart: Signs of life of this engine.
        tell: Called with a line worth reading.
        changed: Called whenever a trial started or ended.
    """

    folder: StudyFolder
    study: optuna.Study
    storage: BaseStorage
    name: str
    proposals: Proposals
    plan: Plan
    objectives: Sequence[str]
    command: Sequence[str]
    fixed: Sequence[str]
    executor: Executor
    slots: Sequence[Mapping[str, str]]
    heart: Heart
    tell: Callable[[str], None] = print
    changed: Callable[["Engine"], None] = lambda engine: None
    running: list[Running] = field(default_factory=list)
    stopping: bool = False
    exhausted: bool = False

    def run(self) -> bool:
        """Search until nothing is left to do.

        Returns:
            Whether the search is finished; False where `stop` or the time limit ended it.

        Raises:
            TuneLabError: If the settings let no trial run.
        """
        began = time.monotonic()
        if self.plan.retry == "failed":
            with claim(self.folder.lock):
                again = retried(self.study, self.trials())
            if again:
                self.tell(f"trying failed trials anew: {', '.join(map(str, again))}")
        while True:
            self._reap()
            if not self.stopping:
                self._fill(began)
            if not self.running and (self.stopping or not self._others_may_leave_work()):
                return not self.stopping and self._done()
            time.sleep(POLL)

    def stop(self) -> None:
        """Start nothing more, and ask every trial to end at a safe point; they go on with the next command."""
        self.stopping = True
        for running in self.running:
            running.job.stop()

    def trials(self) -> list[FrozenTrial]:
        """Every trial of the study."""
        return self.study.get_trials(deepcopy=False)

    def _others_may_leave_work(self) -> bool:
        """Whether another engine holds trials that would be ours to finish if it died."""
        return any(trial.state is TrialState.RUNNING for trial in self.trials())

    def _fill(self, began: float) -> None:
        while len(self.running) < len(self.slots):
            with claim(self.folder.lock):
                started = self._take_over() or (self._wanted(began) and self._start_next())
            if not started:
                return
            self.changed(self)

    def _wanted(self, began: float) -> bool:
        if self.exhausted:
            return False
        trials = counted(self.trials())
        if self.plan.trials is not None and len(trials) >= self.plan.trials:
            return any(trial.state is TrialState.WAITING for trial in self.trials())
        if self.plan.hours is None:
            return True
        lengths = [float(trial.user_attrs["seconds"]) for trial in trials if "seconds" in trial.user_attrs]
        typical = statistics.median(lengths) if lengths else 0.0
        return time.monotonic() - began + typical < self.plan.hours * 3600

    def _done(self) -> bool:
        found = counted(self.trials())
        return self.exhausted or self.plan.hours is not None or len(found) >= (self.plan.trials or 0)

    def _start_next(self) -> bool:
        found = self.proposals.next(self.trials())
        if found is None:
            self.exhausted = True
            return False
        trial, params = found
        chosen = self.proposals.space.overrides(params)
        self._note(trial.number, overrides=chosen)
        self._launch(trial.number, params, [*self.fixed, *chosen])
        return True

    def _take_over(self) -> bool:
        mine = {running.number for running in self.running}
        found = orphan(self.trials(), mine, self.heart.owner, self.folder, self.proposals.space, self.objectives)
        if found is None:
            return False
        trial = found.trial
        if found.outcome is not None:
            self._finish(trial.number, found.outcome)
        elif found.process is not None:
            self.tell(f"trial {trial.number} still runs without its engine: watching it")
            self._note(trial.number, owner=self.heart.owner)
            self._watch(trial.number, trial.params, AdoptedJob(found.process))
        else:
            self.tell(
                f"trial {trial.number} was left by its engine: {'going on' if found.resumes else 'starting it again'}"
            )
            again = [f"resume={self.folder.trial(trial.number)}"]
            anew = [*self.fixed, *self.proposals.space.overrides(trial.params)]
            self._launch(trial.number, trial.params, again if found.resumes else anew)
        return True

    def _launch(self, number: int, params: Params, overrides: Sequence[str]) -> None:
        folder, slot = self.folder.trial(number), self._free_slot()
        self._note(number, owner=self.heart.owner)
        own = [f"trial.id={number}", f"trial.study={self.folder.root}", f"hydra.run.dir={folder}"]
        job = self.executor.start([*self.command, *overrides, *own], folder, self.slots[slot])
        process = getattr(getattr(job, "process", None), "pid", None)
        if process is not None:
            self._note(number, process=owner_of(process))
        self._watch(number, params, job)

    def _watch(self, number: int, params: Params, job: Job) -> None:
        self.running.append(Running(number, params, job, self._free_slot(), time.monotonic()))

    def _free_slot(self) -> int:
        taken = {running.slot for running in self.running}
        return next(slot for slot in range(len(self.slots)) if slot not in taken)

    def _reap(self) -> None:
        for running in list(self.running):
            status = running.job.poll()
            if status is None:
                limit = self.plan.trial_timeout
                if limit is not None and time.monotonic() - running.began > limit and not running.timed_out:
                    running.timed_out = True
                    running.job.stop()
                continue
            self.running.remove(running)
            folder = self.folder.trial(running.number)
            ended = read_outcome(folder, status, self.objectives, timed_out=running.timed_out)
            if self.stopping and ended.state == "failed" and not running.timed_out:
                continue  # it left at a safe point because we asked; the next command goes on with it
            self._finish(running.number, ended)
            self.changed(self)

    def _finish(self, number: int, ended: Outcome) -> None:
        if ended.state == "complete" and (lost := self.plan.constraints.keys() - ended.scores.keys()):
            ended = replace(ended, state="failed", values=(), kind="no result", reason=f"it left no {', '.join(lost)}")
        limits = self.plan.constraints.items() if ended.state == "complete" else ()
        excess = [ended.scores[name] - limit for name, limit in limits]
        self._note_ended(number, ended, excess)
        values = list(ended.values) if ended.state == "complete" else None
        self.study.tell(number, values, state=STATES[ended.state], skip_if_finished=True)
        self._give_up_if_hopeless()

    def _note_ended(self, number: int, ended: Outcome, excess: Sequence[float] = ()) -> None:
        self._note(number, seconds=ended.seconds, kind=ended.kind, reason=ended.reason, scores=dict(ended.scores))
        if excess:
            self._note(number, excess=list(excess))

    def _note(self, number: int, **facts: Any) -> None:
        identifier = self.storage.get_trial_id_from_study_id_trial_number(
            self.storage.get_study_id_from_name(self.name), number
        )
        for name, value in facts.items():
            self.storage.set_trial_user_attr(identifier, name, value)

    def _give_up_if_hopeless(self) -> None:
        ended = [trial for trial in counted(self.trials()) if trial.state.is_finished()]
        first = ended[:FIRST_FAILURES]
        if len(ended) == FIRST_FAILURES and all(trial.user_attrs.get("kind") == "config" for trial in first):
            self.stop()
            last = first[-1]
            raise TuneLabError(
                f"the first {FIRST_FAILURES} trials could not start, so no other will; the last one said: "
                f"{last.user_attrs.get('reason')}\nIts output is in {self.folder.trial(last.number)}/trial.log"
            )


def train_command() -> list[str]:
    """What starts a training like this very process."""
    return [sys.executable, sys.argv[0]]
