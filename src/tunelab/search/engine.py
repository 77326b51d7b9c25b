"""The engine of every search: suggest a trial, start its training, poll it, record its outcome; and when to abort.

Several engines may work on one study, on one machine or on many that share a disk.  An engine starts trials under the
study lock only, so no trial is started or counted twice.  An engine that dies leaves its trials in the state running;
another takes them over: a process that still runs is watched to its end, one that is dead is resumed from its last
checkpoint.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from optuna.trial import FrozenTrial, Trial, TrialState

from tunelab.config.quoting import path_word
from tunelab.config.schema import SearchConfig
from tunelab.errors import ConfigError, TuneLabError
from tunelab.language.translation import translate
from tunelab.runs.locks import exclusive_lock
from tunelab.runs.study_folder import StudyFolder
from tunelab.search.space import Params, Space
from tunelab.search.study_results import elapsed_time, median_duration, work_intervals
from tunelab.search.suggest import counted_trials, requeue_failed
from tunelab.search.trial_outcome import MISSING_SCORE, TrialOutcome, read_outcome, require_scores
from tunelab.search.worker_pool import RunningTrial, WorkerPool, next_takeover, remote_hosts, stale_trials

MIN_POLL, MAX_POLL = 0.002, 0.1  # seconds between two polls of the running trials: least and most
POLL_SHARE = 0.02  # seconds until the next poll, as a share of the running time of the youngest trial
IDLE_POLL = 1.0  # seconds between two polls while this engine runs no trial and waits for others
MAX_PREEMPTIONS = 20  # times that a trial may be preempted before it counts as failed


class Proposer(Protocol):
    """Suggests the next trial."""

    @property
    def space(self) -> Space:
        """The settings that vary."""

    def next(self, trials: Sequence[FrozenTrial]) -> tuple[Trial, Params] | None:
        """The next trial and its configuration, None if there is none now.  Called under the study lock."""

    def has_pending(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether there will be more trials once running ones have ended."""


@dataclass
class Engine:
    """Runs a search to its end.

    Attributes:
        pool: The running trials.
        proposer: Suggests the next trial.
        config: The `search` block.
        objectives: Scores that a trial must have.
        fixed: Overrides of every trial.
        say: Prints a line.
        on_change: Called whenever a trial has started or ended.
        on_poll: Called after each poll of the running trials.
    """

    pool: WorkerPool
    proposer: Proposer
    config: SearchConfig
    objectives: Sequence[str]
    fixed: Sequence[str]
    say: Callable[[str], None] = print
    on_change: Callable[["Engine"], None] = lambda engine: None
    on_poll: Callable[["Engine"], None] = lambda engine: None
    stopping: bool = False
    exhausted: bool = False
    preparing: bool = False  # whether a trial is to be started as soon as the executor can
    stop_announced: bool = False
    fault: TuneLabError | None = None
    announced_remote: set[int] = field(default_factory=set)

    def run(self) -> bool:
        """Search until the budget is spent or nothing is left to try.

        Returns:
            Whether the search is finished; False after `stop`.

        Raises:
            TuneLabError: If no trial can run, or no process be started.
        """
        if self.config.retry == "failed":
            with exclusive_lock(self.pool.folder.engine_lock):
                retried = requeue_failed(self.pool.store.study, self.trials())
            if retried:
                self.say(translate("retrying failed trials: {numbers}", numbers=", ".join(map(str, retried))))
        while True:
            self._collect_ended()
            if not self.stopping:
                self._start_trials()
            if not self.pool.running and (self.stopping or not self.preparing):
                if self.fault is not None:
                    raise self.fault
                if self.stopping or not self._others_may_leave_work():
                    return not self.stopping and (self.exhausted or self._budget_spent(self.trials()))
            if self.stopping and not self.stop_announced:  # not in `stop`: a signal may arrive in the middle of a line
                self.stop_announced = True
                several = len(self.pool.running) > 1
                self.say(
                    translate(
                        "stopping after {trials} save their checkpoints; press Ctrl-C again to kill them"
                        if several
                        else "stopping after {trials} saves a checkpoint; press Ctrl-C again to kill it",
                        trials=join_names(self.pool.numbers),
                    )
                )
            self.on_poll(self)
            time.sleep(self._pause())

    def _pause(self) -> float:
        """Seconds until the next poll: short for a trial that has just started, longer for one that has run long."""
        if not self.pool.running:
            return MAX_POLL if self.preparing else IDLE_POLL
        youngest = time.monotonic() - max(running.started_at for running in self.pool.running)
        return min(MAX_POLL, max(MIN_POLL, POLL_SHARE * youngest))

    def stop(self) -> None:
        """Start nothing more, and stop every trial after its next checkpoint; a second call kills them."""
        second_call, self.stopping = self.stopping, True
        self.pool.stop(now=second_call)

    def trials(self) -> list[FrozenTrial]:
        """Every trial of the study."""
        return self.pool.store.trials()

    def _others_may_leave_work(self) -> bool:
        """Whether another engine runs trials, which this one would take over if that died."""
        return any(trial.state is TrialState.RUNNING for trial in self.trials())

    def _start_trials(self) -> None:
        while self.pool.has_room() and not self.stopping:
            self.preparing = self._work_waits() and not self.pool.is_ready()
            if self.preparing:  # without the lock: other engines go on meanwhile
                return
            with exclusive_lock(self.pool.folder.engine_lock):
                try:
                    with self.pool.store.batched_sync():
                        started = self._take_over() or (self._more_to_start() and self._start_next())
                except TuneLabError as fault:  # the running trials are watched to their end all the same
                    self._abort(fault)
                    return
            if not started:
                return
            self.on_change(self)

    def _work_waits(self) -> bool:
        """Whether there is a trial to start or to take over, as far as can be said without the study lock."""
        stale = stale_trials(self.trials(), self.pool.numbers, self.pool.engine, self.pool.folder)
        return bool(stale) or self._more_to_start()

    def _more_to_start(self) -> bool:
        """Whether another trial is to be started: one is enqueued, or the budget is not spent."""
        trials = self.trials()
        if any(trial.state is TrialState.WAITING for trial in trials):
            return True
        return not self.exhausted and not self._budget_spent(trials)

    def _budget_spent(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether the number of trials is reached, or another one would probably exceed the hours."""
        counted = counted_trials(trials)
        if self.config.trials is not None and len(counted) >= self.config.trials:
            return True
        if self.config.hours is None:
            return False
        stale = {trial.number for trial in stale_trials(trials, self.pool.numbers, self.pool.engine, self.pool.folder)}
        spent = elapsed_time(work_intervals(counted, time.time(), lambda trial: trial.number not in stale))
        return spent + median_duration(counted) >= self.config.hours * 3600

    def _start_next(self) -> bool:
        trials = self.trials()
        suggestion = self.proposer.next(trials)
        if suggestion is None:
            self.exhausted = not self.proposer.has_pending(trials)
            return False
        trial, params = suggestion
        self.pool.store.set_facts(trial.number, overrides=self.proposer.space.overrides(params))
        self._start(trial.number)
        return True

    def _start(self, number: int, *, resumes: bool = False) -> None:
        """Start or resume a trial with its recorded overrides."""
        if resumes:
            words = [path_word("resume", self.pool.folder.trial_folder(number))]
        else:
            facts = self.pool.store.facts(number)
            words = [*self.fixed, *facts["overrides"], *facts.get("stage", [])]
        self.pool.start(number, words)
        if self.stopping:  # a signal came while it was being started
            self.pool.stop()

    def _take_over(self) -> bool:
        folder = self.pool.folder
        stale = stale_trials(self.trials(), self.pool.numbers, self.pool.engine, folder)
        takeover = next_takeover(stale, folder, self.proposer.space, self.objectives, self.pool.executor)
        if takeover is None:
            for number, host in remote_hosts(stale).items():
                if number not in self.announced_remote:
                    self.announced_remote.add(number)
                    text = translate(
                        "trial {number} may still run on {host}: it is taken over once its folder no longer changes",
                        number=number,
                        host=host,
                    )
                    self.say(text)
            return False
        number = takeover.trial.number
        if takeover.outcome is not None:
            self._finish(number, takeover.outcome)
        elif takeover.job is not None:
            self.say(
                translate("watching trial {number}, which still runs (its search process had stopped)", number=number)
            )
            self.pool.adopt(number, takeover.job, takeover.trial.user_attrs.get("devices"))
        else:
            self.say(
                translate(
                    "resuming trial {number} (its search process had stopped)"
                    if takeover.resumes
                    else "starting again trial {number} (its search process had stopped)",
                    number=number,
                )
            )
            self._start(number, resumes=takeover.resumes)
        return True

    def _collect_ended(self) -> None:
        for running, status in self.pool.pop_ended():
            run = self.pool.folder.trial_folder(running.number)
            outcome = read_outcome(run, status, self.objectives, timed_out=running.timed_out)
            with self.pool.store.batched_sync():
                self.pool.record_session(running)
                if not self._keep_interrupted(running, outcome):
                    self._finish(running.number, outcome)
            self.on_change(self)

    def _keep_interrupted(self, running: RunningTrial, outcome: TrialOutcome) -> bool:
        """Keep a trial that was interrupted, to be resumed now or by the next command; False for any other."""
        number = running.number
        if outcome.failure_kind == "disk":
            self._abort(
                TuneLabError(
                    translate(
                        "trial {number} hit a full disk, as any other would: {reason}\nNo trial is lost: free "
                        "some space and give the same command again",
                        number=number,
                        reason=outcome.reason,
                    )
                )
            )
            return True
        if self.stopping:  # it ended because we stopped it
            return outcome.failure_kind in ("preempted", "killed")
        if outcome.failure_kind != "preempted":
            return False
        preemptions = int(self.pool.store.facts(number).get("preempted", 0)) + 1
        if preemptions > MAX_PREEMPTIONS:
            return False
        self.pool.store.set_facts(number, preempted=preemptions)
        text = translate("trial {number} was preempted ({reason}): resuming it", number=number, reason=outcome.reason)
        self.say(text)
        with exclusive_lock(self.pool.folder.engine_lock):
            self._start(number, resumes=(self.pool.folder.trial_folder(number) / "run.json").is_file())
        return True

    def _finish(self, number: int, outcome: TrialOutcome) -> None:
        outcome = require_scores(outcome, self.config.constraints)
        limits = self.config.constraints.items() if outcome.state == "complete" else ()
        self.pool.store.finish(number, outcome, {name: outcome.scores[name] - limit for name, limit in limits})
        if (fault := abort_reason(self.trials(), self.pool.folder)) is not None:
            self._abort(fault)

    def _abort(self, fault: TuneLabError) -> None:
        """Start nothing more; `run` raises the fault once the running trials have ended."""
        self.fault = fault
        self.stopping = True
        self.pool.stop()


def join_names(numbers: Collection[int]) -> str:
    """Trials by number, as part of a sentence."""
    names = [translate("trial {number}", number=number) for number in sorted(numbers)]
    return translate(" and ").join([*([translate(", ").join(names[:-1])] if names[1:] else []), *names[-1:]])


MAX_INITIAL_FAILURES = 3  # first trials that may all fail by their settings before the search aborts


def abort_reason(trials: Sequence[FrozenTrial], folder: StudyFolder) -> TuneLabError | None:
    """The reason to abort the search, as no further trial can succeed; None where one may.

    Args:
        trials: Every trial of the study.
        folder: Its files.
    """
    ended = [trial for trial in counted_trials(trials) if trial.state.is_finished()]
    any_complete = any(trial.state is TrialState.COMPLETE for trial in ended)
    unscored = [trial for trial in ended if trial.user_attrs.get("kind") == MISSING_SCORE]
    if unscored and not any_complete:
        last = unscored[-1]
        return ConfigError(
            translate(
                "trial {number} ran to its end and {reason}\nNo other trial would leave it either; "
                "search.objectives and search.constraints take these names only",
                number=last.number,
                reason=last.user_attrs.get("reason"),
            )
        )
    first = ended[:MAX_INITIAL_FAILURES]
    if len(ended) == MAX_INITIAL_FAILURES and all(trial.user_attrs.get("kind") == "config" for trial in first):
        last = first[-1]
        return TuneLabError(
            translate(
                "the first {max_initial_failures} trials could not start, so no other will; the last "
                "one reported: {reason}\nIts output is in {trial_folder}/trial.log",
                max_initial_failures=MAX_INITIAL_FAILURES,
                reason=last.user_attrs.get("reason"),
                trial_folder=folder.trial_folder(last.number),
            )
        )
    return None
