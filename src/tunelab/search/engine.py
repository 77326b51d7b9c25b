"""The engine of every search: suggest, start a training, watch it, record its outcome; and when to give up.

Several engines may work on one study, on one machine or on many that share a disk.  Whoever decides what runs next
holds the study's lock, so no trial is started twice and none is counted twice.  An engine that dies leaves its trials
marked as running; the next one takes them over: a process that still runs is watched to its end, one that is gone goes
on from its last checkpoint.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from optuna.trial import FrozenTrial, Trial, TrialState

from tunelab.errors import ConfigError, TuneLabError
from tunelab.search.search_config import SearchConfig
from tunelab.search.space import Params, Space
from tunelab.search.study_folder import StudyFolder
from tunelab.search.study_results import elapsed_time, median_duration, work_intervals
from tunelab.search.study_storage import study_lock
from tunelab.search.suggest import counted_trials, requeue_failed
from tunelab.search.trial_outcome import MISSING_SCORE, TrialOutcome, read_outcome, require_scores
from tunelab.search.worker_pool import RunningTrial, WorkerPool, next_takeover, stale_hosts, stale_trials

MIN_POLL, MAX_POLL = 0.002, 0.1  # seconds between two looks at the running trials: least and most
POLL_SHARE = 0.02  # of the time that a trial has run, until it is looked at again
IDLE_POLL = 1.0  # the same while nothing of ours runs and we wait for other engines
MAX_PREEMPTIONS = 20  # times that a trial may be sent away by others before it counts as failed


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

    crew: WorkerPool
    proposals: Proposer
    plan: SearchConfig
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
            with study_lock(self.crew.folder.lock):
                again = requeue_failed(self.crew.notes.study, self.trials())
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
            return IDLE_POLL
        youngest = time.monotonic() - max(running.began for running in self.crew.running)
        return min(MAX_POLL, max(MIN_POLL, POLL_SHARE * youngest))

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
            with study_lock(self.crew.folder.lock):
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
        found = counted_trials(trials)
        if self.plan.trials is not None and len(found) >= self.plan.trials:
            return True
        if self.plan.hours is None:
            return False
        left = {trial.number for trial in stale_trials(trials, self.crew.numbers, self.crew.owner, self.crew.folder)}
        spent = elapsed_time(work_intervals(found, time.time(), lambda trial: trial.number not in left))
        return spent + median_duration(found) >= self.plan.hours * 3600

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
        left = stale_trials(self.trials(), self.crew.numbers, self.crew.owner, folder)
        found = next_takeover(left, folder, self.proposals.space, self.objectives, self.crew.executor) if left else None
        if found is None:
            for number, host in stale_hosts(left).items():
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

    def _goes_on(self, running: RunningTrial, ended: TrialOutcome) -> bool:
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
        if times > MAX_PREEMPTIONS:
            return False
        self.crew.notes.write(number, preempted=times)
        self.tell(f"trial {number} was sent away by others ({ended.reason}): going on with it")
        with study_lock(self.crew.folder.lock):
            self._start(number, resumes=(self.crew.folder.trial(number) / "run.json").is_file())
        return True

    def _finish(self, number: int, ended: TrialOutcome) -> None:
        ended = require_scores(ended, self.plan.constraints)
        limits = self.plan.constraints.items() if ended.state == "complete" else ()
        self.crew.notes.end(number, ended, {name: ended.scores[name] - limit for name, limit in limits})
        if (fault := abort_reason(self.trials(), self.crew.folder)) is not None:
            self._give_up(fault)

    def _give_up(self, fault: TuneLabError) -> None:
        """Start nothing more; `run` raises once the trials at work have ended."""
        self.fault = fault
        self.stopping = True
        self.crew.stop()


MAX_INITIAL_FAILURES = 3  # trials in a row that may fail by their settings


def abort_reason(trials: Sequence[FrozenTrial], folder: StudyFolder) -> TuneLabError | None:
    """Why the search has no prospect; None where it has.

    Args:
        trials: Every trial of the study.
        folder: Its files.
    """
    ended = [trial for trial in counted_trials(trials) if trial.state.is_finished()]
    whole = any(trial.state is TrialState.COMPLETE for trial in ended)
    unscored = [trial for trial in ended if trial.user_attrs.get("kind") == MISSING_SCORE]
    if unscored and not whole:
        last = unscored[-1]
        return ConfigError(
            f"trial {last.number} ran to its end and {last.user_attrs.get('reason')}\nNo other trial would leave it "
            "either; search.objectives and search.constraints take these names only"
        )
    first = ended[:MAX_INITIAL_FAILURES]
    if len(ended) == MAX_INITIAL_FAILURES and all(trial.user_attrs.get("kind") == "config" for trial in first):
        last = first[-1]
        return TuneLabError(
            f"the first {MAX_INITIAL_FAILURES} trials could not start, so no other will; the last one said: "
            f"{last.user_attrs.get('reason')}\nIts output is in {folder.trial(last.number)}/trial.log"
        )
    return None
