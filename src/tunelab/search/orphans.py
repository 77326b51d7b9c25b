"""Trials whose engine is gone: what became of each, and how to go on with it."""

import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from tunelab.record import RunFolder
from tunelab.search.folder import StudyFolder
from tunelab.search.jobs import Executor, Job
from tunelab.search.outcome import CUT, UNSTARTED, Outcome, implied_status, read_outcome
from tunelab.search.owner import alive, host_of
from tunelab.search.space import Space


@dataclass(frozen=True)
class Orphan:
    """A trial to take over; one of `job` and `outcome` is given, or the trial is to be started.

    Attributes:
        trial: As the study has it.
        job: Its training still runs.
        outcome: Its training has ended so.
        resumes: Whether a start goes on from what it left.
    """

    trial: FrozenTrial
    job: Job | None = None
    outcome: Outcome | None = None
    resumes: bool = False


def left_behind(
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
        if not owner or owner == me or not alive(owner, folder.engines):
            found.append(trial)
    return found


def orphan(
    left: Sequence[FrozenTrial], folder: StudyFolder, space: Space, objectives: Sequence[str], executor: Executor
) -> Orphan | None:
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
            return Orphan(
                trial, outcome=Outcome("failed", (), UNSTARTED, "its engine died between asking and starting")
            )
        job = executor.adopt(str(trial.user_attrs.get("process", "")), run)
        if job is not None:
            return Orphan(trial, job=job)
        ended = read_outcome(run, implied_status(run), objectives)
        if ended.state != "failed" or ended.kind not in CUT:
            return Orphan(trial, outcome=ended)
        if not RunFolder(run).is_held():
            return Orphan(trial, resumes=(run / "run.json").is_file())
    return None


def elsewhere(left: Sequence[FrozenTrial]) -> dict[int, str]:
    """The machines of trials left behind on another one, by number."""
    hosts = {trial.number: host_of(str(trial.user_attrs.get("owner", ""))) for trial in left}
    return {number: host for number, host in hosts.items() if host not in ("", socket.gethostname())}
