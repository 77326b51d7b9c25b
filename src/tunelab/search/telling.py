"""What a search says before its first trial and after its last one."""

import os
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from tunelab import console
from tunelab.errors import TuneLabError
from tunelab.search.folder import StudyFolder
from tunelab.search.ledger import WORDS, ranked
from tunelab.search.plan import Plan
from tunelab.search.population import GENERATION
from tunelab.search.proposals import counted
from tunelab.search.request import Request
from tunelab.search.samplers import resolve
from tunelab.search.sentences import settings
from tunelab.search.taught import write_what_it_taught

PROPOSERS = {
    "grid": "one for each combination",
    "random": "drawn at random",
    "qmc": "drawn evenly (Sobol)",
    "tpe": "proposed by TPE",
    "gp": "proposed by a Gaussian process",
    "cmaes": "proposed by CMA-ES",
    "evolution": "bred by NSGA-II",
    "pbt": "the stages of a population",
}
ENDERS = {"median": "the median rule", "hyperband": "Hyperband", "asha": "asynchronous halving"}
CURES = {
    "timeout": "search.trial_timeout=SECONDS gives each more time",
    "memory": "a lower micro_tokens or batch_size takes less memory",
    "diverged": "lower the upper end of lr",
    "killed": "somebody or the system killed them; watch the memory of the machine",
    "config": "their settings do not go together; narrow the space",
}
SHOWN = 5  # trials of a front that are told one by one


def announce(
    folder: StudyFolder, plan: Plan, request: Request, mended: Sequence[str], arguments: Sequence[str]
) -> None:
    """Say what is about to be searched."""
    many = f"{plan.trials} trials" if plan.trials is not None else f"trials for {plan.hours:g} hours"
    ends = "" if plan.pruner == "none" else f"; hopeless ones are ended by {ENDERS.get(plan.pruner, plan.pruner)}"
    by = PROPOSERS[resolve(plan.sampler, request.space, plan.trials)]
    console.say(f"search: {many}, {by}, {plan.slots} at a time{ends}")
    for line in [*mended, *request.notes]:
        console.say(f"  {line}")
    if request.outside and plan.default_trial and plan.sampler != "grid":
        console.say(
            f"  the settings without a search are no trial, as they lie outside the space: {', '.join(request.outside)}"
        )
    console.say(f"study folder: {folder.root}")


def resume_line(folder: StudyFolder, arguments: Sequence[str]) -> str:
    """The command that goes on."""
    return f"go on with: python train.py -m {shlex.join(arguments)} hydra.sweep.dir={shlex.quote(str(folder.root))}"


def conclude(
    folder: StudyFolder,
    study: optuna.Study,
    names: Sequence[str],
    finished: bool,
    show: Callable[[Path, Mapping[str, float]], None],
) -> None:
    """Tell what was found.

    Args:
        folder: The study's files.
        study: Optuna's record of it.
        names: Of the objectives.
        finished: Whether the search came to its end.
        show: Takes the report and the best values, for a tracker.

    Raises:
        TuneLabError: If nothing was found, or the search is not finished.
    """
    trials = counted(study.get_trials(deepcopy=False))
    best = ranked(trials, study.directions)
    for line in tally(trials):
        console.say(line)
    if not best:
        raise TuneLabError(
            f"no trial left a result to choose from; {folder.trials} tells why, trial by trial. Once the cause is "
            "gone, the same command with search.retry=failed tries them anew"
        )
    for line in verdict(best, trials, names):
        console.say(line)
    page = write_what_it_taught(folder)
    console.show_paths(
        {
            "study": folder.summary,
            "trials": folder.trials,
            "best settings": folder.best,
            "best run": folder.trial(best[0].number),
            "what it taught": page,
        }
    )
    show(page, {**dict(zip(names, best[0].values, strict=True)), "trials": len(trials)})
    if GENERATION in best[0].user_attrs:
        console.say("its settings changed from stage to stage (schedule in study.json); the result is that run itself")
    else:
        console.say(f"run it again with: python train.py experiment={shlex.quote(near(folder.root))}")
        if len(names) == 1:
            console.say(f"was it luck? tunelab confirm {shlex.quote(near(folder.root))}")
    if not finished:
        raise TuneLabError("the search is not finished; the same command goes on")


def tally(trials: Sequence[FrozenTrial]) -> list[str]:
    """How the trials of a search ended, and what helps those that failed."""
    states = Counter(WORDS[trial.state] for trial in trials if trial.state.is_finished())
    over = sum(t.state is TrialState.COMPLETE and max(t.user_attrs.get("excess") or [0.0]) > 0 for t in trials)
    lines = [f"{sum(states.values())} trials: " + ", ".join(f"{count} {word}" for word, count in states.items())]
    if over:
        lines.append(f"  {over} complete above a limit of search.constraints, so never best")
    kinds = Counter(str(trial.user_attrs.get("kind")) for trial in trials if trial.state is TrialState.FAIL)
    for kind, count in kinds.most_common():
        cure = f"; {CURES[kind]}" if kind in CURES else ""
        lines.append(f"  {count} failed ({kind}){cure}")
    return lines


def verdict(best: Sequence[FrozenTrial], trials: Sequence[FrozenTrial], names: Sequence[str]) -> list[str]:
    """The best trial next to the default, or those that none beats in every score.

    Args:
        best: As `ranked` gives them.
        trials: Every trial that counts.
        names: Of the objectives.
    """

    def line(trial: FrozenTrial) -> str:
        return ", ".join(f"{name} {value:.6g}" for name, value in zip(names, trial.values, strict=True))

    whole = [trial for trial in trials if trial.values is not None and GENERATION not in trial.user_attrs]
    default = next((trial for trial in whole if trial.user_attrs.get("origin") == "default"), None)
    beside = f"; the settings without a search, trial {default.number}: {line(default)}" if default is not None else ""
    if len(names) == 1:
        same = default is not None and default.number == best[0].number
        return [f"best: trial {best[0].number}, {line(best[0])}" + ("; that is no search at all" if same else beside)]
    more = f" and {len(best) - SHOWN} more, see study.json" if len(best) > SHOWN else ""
    return [
        f"the front, which no trial beats in every score ({len(best)} of {len(trials)} trials){beside}",
        *(f"  trial {trial.number}: {line(trial)}  {settings(trial.params)}" for trial in best[:SHOWN]),
        *([more.strip()] if more else []),
        f"files speak of trial {best[0].number}, the one with the best {names[0]}",
    ]


def near(path: Path) -> str:
    """A path as one would type it here: relative below this folder, absolute elsewhere."""
    short = os.path.relpath(path)
    return str(path) if short.startswith("..") else short
