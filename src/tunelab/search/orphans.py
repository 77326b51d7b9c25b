"""Trials whose engine is gone: what became of each, and how to go on with it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from tunelab.lock import identity
from tunelab.search.outcome import Outcome, read_outcome
from tunelab.search.owner import alive, owner_of
from tunelab.search.space import Space
from tunelab.search.study import StudyFolder


@dataclass(frozen=True)
class Orphan:
    """A trial to take over; one of `process` and `outcome` is given, or the trial is to be started.

    Attributes:
        trial: As the study has it.
        process: Its training still runs, under this identity.
        outcome: Its training has ended so.
        resumes: Whether a start goes on from what it left.
    """

    trial: FrozenTrial
    process: str | None = None
    outcome: Outcome | None = None
    resumes: bool = False


def orphan(
    trials: Sequence[FrozenTrial],
    mine: Collection[int],
    me: str,
    folder: StudyFolder,
    space: Space,
    objectives: Sequence[str],
) -> Orphan | None:
    """The first running trial without a living engine; None where all have one.

    Args:
        trials: Every trial of the study.
        mine: Numbers of those that this engine watches.
        me: Name of this engine.
        folder: The study's files.
        space: What a configuration must hold to be started.
        objectives: Scores that a trial must leave.
    """
    for trial in trials:
        if trial.state is not TrialState.RUNNING or trial.number in mine:
            continue
        owner = str(trial.user_attrs.get("owner", ""))
        if owner and owner != me and alive(owner, folder.engines):
            continue
        host, _, who = str(trial.user_attrs.get("process", "")).partition(":")
        if who and f"{host}:{who}" == owner_of_process(who) and host == owner_of(0).partition(":")[0]:
            return Orphan(trial, process=who)
        ended = read_outcome(folder.trial(trial.number), 0, objectives)
        if ended.state != "failed" or ended.kind == "diverged":
            return Orphan(trial, outcome=ended)
        if not space.holds(trial.params):
            lost = Outcome("failed", (), "killed", "its engine died between asking and starting")
            return Orphan(trial, outcome=lost)
        return Orphan(trial, resumes=(folder.trial(trial.number) / "run.json").is_file())
    return None


def owner_of_process(who: str) -> str | None:
    """The full name of a process of this machine that still lives under this identity; None if it does not."""
    number = who.partition(":")[0]
    return owner_of(int(number)) if number.isdigit() and identity(int(number)) == who else None
