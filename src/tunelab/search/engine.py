"""The engine of every search: ask, start a training, watch, tell.

Several engines may work on one study, on one machine or on many that share a disk.  Whoever decides what runs next
holds the study's claim, so no trial is started twice and none is counted twice.  An engine that dies leaves its trials
marked as running; the next one takes them over: a process that still runs is watched to its end, one that is gone goes
on from its last checkpoint.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from optuna.trial import FrozenTrial, Trial, TrialState

from tunelab.errors import TuneLabError
from tunelab.search.claim import claim
from tunelab.search.crew import Crew, Running
from tunelab.search.hopeless import hopeless
from tunelab.search.orphans import elsewhere, left_behind, orphan
from tunelab.search.outcome import Outcome, read_outcome, scored
from tunelab.search.plan import Plan
from tunelab.search.proposals import counted, retried
from tunelab.search.space import Params, Space
from tunelab.search.spent import covered, intervals, typical

SOON, POLL = 0.002, 0.1  # seconds between two looks at the running trials: least and most
SHARE = 0.02  # of the time that a trial has run, until it is looked at again
QUIET = 1.0  # the same while nothing of ours runs and we wait for other engines
PREEMPTED = 20  # times that a trial may be sent away by others before it counts as failed


class Proposer(Protocol):
    """What decides which configuration is tried next."""

    @property
    def space(self) -> Space:
        """What may be tried."""

    def next(self, trials: Sequence[FrozenTrial]) -> tuple[Trial, Params] | None:
        """The next trial and its configuration, None if there is none now.  Called under the study's claim."""

    def waits(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether there will be more to try once running trials have ended."""


@dataclass
class Engine:
    """Runs a search to its end.

    Attributes:
        crew: The trials at work.
        proposals: What is tried next.
        plan: How to search.
        objectives: Scores that a trial must leave.
        fixed: Overrides that every trial has.
        tell: Called with a line worth reading.
        changed: Called whenever a trial started or ended.
        looked: Called after each look at the running trials.
    """

    crew: Crew
    proposals: Proposer
    plan: Plan
    objectives: Sequence[str]
    fixed: Sequence[str]
    tell: Callable[[str], None] = print
    changed: Callable[["Engine"], None] = lambda engine: None
    looked: Callable[["Engine"], None] = lambda engine: None
    stopping: bool = False
    exhausted: bool = False
    farewell: bool = False
    fault: TuneLabError | None = None
    waited_for: set[int] = field(default_factory=set)

    def run(self) -> bool:
        """Search until nothing is left to do.

        Returns:
            Whether the search is finished; False where `stop` ended it.

        Raises:
            TuneLabError: If the settings let no trial run, or the system none start.
        """
        if self.plan.retry == "failed":
            with claim(self.crew.folder.lock):
                again = retried(self.crew.notes.study, self.trials())
            if again:
                self.tell(f"trying failed trials anew: {', '.join(map(str, again))}")
        while True:
            self._reap()
            if not self.stopping:
                self._fill()
            if not self.crew.running:
                if self.fault is not None:
                    raise self.fault
                if self.stopping or not self._others_may_leave_work():
                    return not self.stopping and self._done()
            if self.stopping and not self.farewell:  # not within `stop`: a signal may have come in the middle of a line
                self.farewell = True
                names = " and ".join(f"trial {running.number}" for running in self.crew.running)
                self.tell(f"stopping as soon as {names} reached a safe point; a second signal ends that at once")
            self.looked(self)
            time.sleep(self._pause())

    def _pause(self) -> float:
        """Seconds until the next look: a trial that has just begun may end at once, a long one can wait."""
        if not self.crew.running:
            return QUIET
        youngest = time.monotonic() - max(running.began for running in self.crew.running)
        return min(POLL, max(SOON, SHARE * youngest))

    def stop(self) -> None:
        """Start nothing more, and ask every trial to end at a safe point; a second call ends them at once."""
        again, self.stopping = self.stopping, True
        self.crew.stop(now=again)

    def trials(self) -> list[FrozenTrial]:
        """Every trial of the study."""
        return self.crew.notes.trials()

    def _others_may_leave_work(self) -> bool:
        """Whether another engine holds trials that would be ours to finish if it died."""
        return any(trial.state is TrialState.RUNNING for trial in self.trials())

    def _fill(self) -> None:
        while self.crew.has_room() and not self.stopping:
            with claim(self.crew.folder.lock):
                try:
                    with self.crew.notes.at_once():
                        started = self._take_over() or (self._wanted() and self._start_next())
                except TuneLabError as fault:  # the trials at work are watched to their end all the same
                    self._give_up(fault)
                    return
            if not started:
                return
            self.changed(self)

    def _wanted(self) -> bool:
        """Whether another trial is to be started."""
        trials = self.trials()
        if any(trial.state is TrialState.WAITING for trial in trials):
            return True
        return not self.exhausted and not self._enough(trials)

    def _enough(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether the budget is used up."""
        found = counted(trials)
        if self.plan.trials is not None and len(found) >= self.plan.trials:
            return True
        if self.plan.hours is None:
            return False
        left = {trial.number for trial in left_behind(trials, self.crew.numbers, self.crew.owner, self.crew.folder)}
        spent = covered(intervals(found, time.time(), lambda trial: trial.number not in left))
        return spent + typical(found) >= self.plan.hours * 3600

    def _done(self) -> bool:
        return self.exhausted or self._enough(self.trials())

    def _start_next(self) -> bool:
        trials = self.trials()
        found = self.proposals.next(trials)
        if found is None:
            self.exhausted = not self.proposals.waits(trials)
            return False
        trial, params = found
        self.crew.notes.write(trial.number, overrides=self.proposals.space.overrides(params))
        self._start(trial.number)
        return True

    def _start(self, number: int, *, resumes: bool = False) -> None:
        """Start a trial by what was noted of it."""
        noted = self.crew.notes.facts(number)
        anew = [*self.fixed, *noted["overrides"], *noted.get("stage", [])]
        self.crew.start(number, [f"resume={self.crew.folder.trial(number)}"] if resumes else anew)

    def _take_over(self) -> bool:
        folder = self.crew.folder
        left = left_behind(self.trials(), self.crew.numbers, self.crew.owner, folder)
        found = orphan(left, folder, self.proposals.space, self.objectives, self.crew.executor) if left else None
        if found is None:
            for number, host in elsewhere(left).items():
                if number not in self.waited_for:
                    self.waited_for.add(number)
                    self.tell(f"trial {number} may still run on {host}: it is taken over once its folder falls silent")
            return False
        number = found.trial.number
        if found.outcome is not None:
            self._finish(number, found.outcome)
        elif found.job is not None:
            self.tell(f"trial {number} still runs without its engine: watching it")
            self.crew.adopt(number, found.job, found.trial.user_attrs.get("devices"))
        else:
            how = "going on from its last checkpoint" if found.resumes else "starting it again"
            self.tell(f"trial {number} was left by its engine: {how}")
            self._start(number, resumes=found.resumes)
        return True

    def _reap(self) -> None:
        for running, status in self.crew.ended():
            run = self.crew.folder.trial(running.number)
            ended = read_outcome(run, status, self.objectives, timed_out=running.timed_out)
            with self.crew.notes.at_once():
                self.crew.close(running)
                if not self._goes_on(running, ended):
                    self._finish(running.number, ended)
            self.changed(self)

    def _goes_on(self, running: Running, ended: Outcome) -> bool:
        """Whether a trial that was cut off is kept, to be gone on with now or by the next command."""
        number = running.number
        if ended.kind == "disk":
            self._give_up(
                TuneLabError(
                    f"trial {number} found no room on the disk, so no other would: {ended.reason}\n"
                    "No trial is lost: free some space and give the same command again"
                )
            )
            return True
        if self.stopping:  # it left because we asked
            return ended.kind in ("preempted", "killed")
        if ended.kind != "preempted":
            return False
        times = int(self.crew.notes.facts(number).get("preempted", 0)) + 1
        if times > PREEMPTED:
            return False
        self.crew.notes.write(number, preempted=times)
        self.tell(f"trial {number} was sent away by others ({ended.reason}): going on with it")
        with claim(self.crew.folder.lock):
            self._start(number, resumes=(self.crew.folder.trial(number) / "run.json").is_file())
        return True

    def _finish(self, number: int, ended: Outcome) -> None:
        ended = scored(ended, self.plan.constraints)
        limits = self.plan.constraints.items() if ended.state == "complete" else ()
        self.crew.notes.end(number, ended, {name: ended.scores[name] - limit for name, limit in limits})
        if (fault := hopeless(self.trials(), self.crew.folder)) is not None:
            self._give_up(fault)

    def _give_up(self, fault: TuneLabError) -> None:
        """Start nothing more; `run` raises once the trials at work have ended."""
        self.fault = fault
        self.stopping = True
        self.crew.stop()
