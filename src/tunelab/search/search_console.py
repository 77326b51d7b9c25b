"""What a search prints: before its first trial, while it runs (a live table or plain lines), and after its last."""

import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.live import Live
from rich.table import Table

from tunelab.errors import TuneLabError
from tunelab.runs import console
from tunelab.search.pbt import GENERATION
from tunelab.search.samplers import resolve_sampler
from tunelab.search.search_config import SearchConfig, SearchRequest
from tunelab.search.study_artifacts import write_study_report
from tunelab.search.study_folder import StudyFolder
from tunelab.search.study_results import STATE_WORDS, elapsed_time, median_duration, rank_trials, work_intervals
from tunelab.search.suggest import counted_trials

SAMPLER_TEXTS = {
    "grid": "one for each combination",
    "random": "drawn at random",
    "qmc": "drawn evenly (Sobol)",
    "tpe": "proposed by TPE",
    "gp": "proposed by a Gaussian process",
    "cmaes": "proposed by CMA-ES",
    "evolution": "bred by NSGA-II",
    "pbt": "the stages of a population",
}
PRUNER_TEXTS = {"median": "the median rule", "hyperband": "Hyperband", "asha": "asynchronous halving"}
FAILURE_HINTS = {
    "timeout": "search.trial_timeout=SECONDS gives each more time",
    "memory": "a lower micro_tokens or batch_size takes less memory",
    "diverged": "lower the upper end of lr",
    "killed": "somebody or the system killed them; watch the memory of the machine",
    "config": "their settings do not go together; narrow the space",
}
MAX_FRONT_TRIALS = 5  # trials of a front that are told one by one


def announce_search(
    folder: StudyFolder, plan: SearchConfig, request: SearchRequest, mended: Sequence[str], arguments: Sequence[str]
) -> None:
    """Say what is about to be searched."""
    many = f"{plan.trials} trials" if plan.trials is not None else f"trials for {plan.hours:g} hours"
    ends = "" if plan.pruner == "none" else f"; hopeless ones are ended by {PRUNER_TEXTS.get(plan.pruner, plan.pruner)}"
    by = SAMPLER_TEXTS[resolve_sampler(plan.sampler, request.space, plan.trials)]
    console.say(f"search: {many}, {by}, {plan.slots} at a time{ends}")
    for line in [*mended, *request.notes]:
        console.say(f"  {line}")
    if request.outside and plan.default_trial and plan.sampler != "grid":
        console.say(
            f"  the settings without a search are no trial, as they lie outside the space: {', '.join(request.outside)}"
        )
    console.say(f"study folder: {folder.root}")


def resume_hint(folder: StudyFolder, arguments: Sequence[str]) -> str:
    """The command that goes on."""
    return f"go on with: python train.py -m {shlex.join(arguments)} hydra.sweep.dir={shlex.quote(str(folder.root))}"


def announce_results(
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
    trials = counted_trials(study.get_trials(deepcopy=False))
    best = rank_trials(trials, study.directions)
    for line in outcome_counts(trials):
        console.say(line)
    if not best:
        raise TuneLabError(
            f"no trial left a result to choose from; {folder.trials} tells why, trial by trial. Once the cause is "
            "gone, the same command with search.retry=failed tries them anew"
        )
    for line in best_trial_lines(best, trials, names):
        console.say(line)
    page = write_study_report(folder)
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
        console.say(f"run it again with: python train.py experiment={shlex.quote(relative_path(folder.root))}")
        if len(names) == 1:
            console.say(f"was it luck? tunelab confirm {shlex.quote(relative_path(folder.root))}")
    if not finished:
        raise TuneLabError("the search is not finished; the same command goes on")


def outcome_counts(trials: Sequence[FrozenTrial]) -> list[str]:
    """How the trials of a search ended, and what helps those that failed."""
    states = Counter(STATE_WORDS[trial.state] for trial in trials if trial.state.is_finished())
    over = sum(t.state is TrialState.COMPLETE and max(t.user_attrs.get("excess") or [0.0]) > 0 for t in trials)
    lines = [f"{sum(states.values())} trials: " + ", ".join(f"{count} {word}" for word, count in states.items())]
    if over:
        lines.append(f"  {over} complete above a limit of search.constraints, so never best")
    kinds = Counter(str(trial.user_attrs.get("kind")) for trial in trials if trial.state is TrialState.FAIL)
    for kind, count in kinds.most_common():
        cure = f"; {FAILURE_HINTS[kind]}" if kind in FAILURE_HINTS else ""
        lines.append(f"  {count} failed ({kind}){cure}")
    return lines


def best_trial_lines(best: Sequence[FrozenTrial], trials: Sequence[FrozenTrial], names: Sequence[str]) -> list[str]:
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
    more = f" and {len(best) - MAX_FRONT_TRIALS} more, see study.json" if len(best) > MAX_FRONT_TRIALS else ""
    return [
        f"the front, which no trial beats in every score ({len(best)} of {len(trials)} trials){beside}",
        *(f"  trial {trial.number}: {line(trial)}  {params_text(trial.params)}" for trial in best[:MAX_FRONT_TRIALS]),
        *([more.strip()] if more else []),
        f"files speak of trial {best[0].number}, the one with the best {names[0]}",
    ]


def relative_path(path: Path) -> str:
    """A path as one would type it here: relative below this folder, absolute elsewhere."""
    short = os.path.relpath(path)
    return str(path) if short.startswith("..") else short


MAX_TABLE_TRIALS = 8  # trials of the live table, beside those that run
REFRESH_SECONDS = 2.0  # seconds between two drawings


class ProgressDisplay:
    """Follows a search.

    Args:
        wanted: Trials that the study shall hold; None if nobody knows.
        objectives: Names of the scores.
        directions: Which way each is better.
        limits: Names of the scores that must stay below a limit.
        slots: Trials that run at a time.
        hours: Time after which no trial starts; None for no limit.
    """

    def __init__(
        self,
        wanted: int | None,
        objectives: Sequence[str],
        directions: Sequence[StudyDirection],
        limits: Sequence[str] = (),
        slots: int = 1,
        hours: float | None = None,
    ) -> None:
        self.wanted, self.directions, self.slots = wanted, directions, slots
        self.objectives, self.limits, self.hours = objectives, limits, hours
        self.told: set[int] | None = None
        self.drawn = float("-inf")
        # the stream of now: a training in this process has its own, and the table must not end up in its log
        terminal = Console(file=sys.stdout) if console.is_terminal() else None
        self.live = Live(console=terminal, refresh_per_second=2, transient=True) if terminal is not None else None

    def __enter__(self) -> "ProgressDisplay":
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *fault: object) -> None:
        if self.live is not None:
            self.live.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        if self.live is not None:
            self.live.console.print(text, markup=False, highlight=False)
        else:
            console.say(text)

    def look(self, trials: Callable[[], Sequence[FrozenTrial]]) -> None:
        """Draw the scores of the running trials anew, where somebody watches and it is time."""
        if self.live is not None and time.monotonic() - self.drawn > REFRESH_SECONDS:
            self._draw(trials())

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Tell of the trials that have ended since the last call, and draw the table."""
        ended = [trial for trial in counted_trials(trials) if trial.state.is_finished()]
        if self.told is None:  # what earlier commands found was told then
            self.told = {trial.number for trial in ended}
        for trial in ended:
            if trial.number not in self.told:
                self.told.add(trial.number)
                found = trial_line(trial, self.objectives, self.limits)
                self.say(f"{found}  [{self.progress(trials)}]{self._mark(trial, ended)}")
        if self.live is not None:
            self._draw(trials)

    def progress(self, trials: Sequence[FrozenTrial]) -> str:
        """How far the search is, and how long it may take."""
        ended = [trial for trial in counted_trials(trials) if trial.state.is_finished()]
        done = f"{len(ended)} done" if self.wanted is None else f"{len(ended)} of {self.wanted}"
        known = list[float]()
        if self.wanted is not None:
            ages = [trial_seconds(trial) for trial in trials if trial.state is TrialState.RUNNING]
            known.append(remaining_seconds(self.wanted - len(ended), ages, median_duration(ended), self.slots))
        if self.hours is not None:
            known.append(3600 * self.hours - elapsed_time(work_intervals(trials, time.time(), lambda trial: True)))
        seconds = min(known, default=0.0)
        return done + (f", about {duration_text(seconds)} left" if seconds > 0 else "")

    def table(self, trials: Sequence[FrozenTrial]) -> Table:
        """The running trials, then the best ones."""
        best = rank_trials(trials, self.directions)
        states = Counter(STATE_WORDS.get(trial.state, trial.state.name.lower()) for trial in counted_trials(trials))
        counts = ", ".join(f"{count} {word}" for word, count in states.items())
        title = f"{self.progress(trials)}: {counts}" if counts else self.progress(trials)
        grid = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for name in ("trial", "state", "checks", " ".join(self.objectives), "time", "settings"):
            grid.add_column(name, overflow="fold", no_wrap=name in ("trial", "time"))
        running = [trial for trial in trials if trial.state is TrialState.RUNNING]
        for trial in [*running, *best[:MAX_TABLE_TRIALS]]:
            curve = trial.intermediate_values
            score = scores_text(trial.values) if trial.values is not None else scores_text(list(curve.values())[-1:])
            state, checks = STATE_WORDS.get(trial.state, "running"), str(len(curve) or "")
            grid.add_row(
                str(trial.number), state, checks, score, duration_text(trial_seconds(trial)), params_text(trial.params)
            )
        return grid

    def _draw(self, trials: Sequence[FrozenTrial]) -> None:
        assert self.live is not None
        self.drawn = time.monotonic()
        self.live.update(self.table(trials))

    def _mark(self, trial: FrozenTrial, ended: Sequence[FrozenTrial]) -> str:
        best = [found.number for found in rank_trials(ended, self.directions)]
        if len(self.directions) > 1:
            return "  on the front" if trial.number in best else ""
        return "  best so far" if best[:1] == [trial.number] else ""


def trial_seconds(trial: FrozenTrial) -> float:
    """Seconds that a trial has been at work."""
    before = sum(float(end) - float(start) for start, end in trial.user_attrs.get("sessions", []))
    if trial.state is not TrialState.RUNNING or "began" not in trial.user_attrs:
        return before
    return before + max(0.0, time.time() - float(trial.user_attrs["began"]))


def remaining_seconds(left: int, ages: Sequence[float], usual: float, slots: int) -> float:
    """Seconds until a search is done, if every trial takes as long as is usual; 0 where nobody knows.

    Args:
        left: Trials that have not ended, those at work among them.
        ages: Seconds that those at work have run.
        usual: Seconds of a trial.
        slots: Trials at a time.

    Example:
        >>> remaining_seconds(4, [10.0, 0.0], 60.0, 2)
        115.0
    """
    begun = sum(max(0.0, usual - age) for age in ages[:left])
    work = begun + usual * max(0, left - len(ages))
    return work / max(1, min(left, max(slots, len(ages))))


USUAL_ORIGINS = ("sampler", "grid")  # where most configurations come from: not worth a word
MAX_REASON_LENGTH = 120  # characters of a reason


def trial_line(trial: FrozenTrial, objectives: Sequence[str], limits: Sequence[str] = ()) -> str:
    """One line for a trial that has ended.

    Args:
        trial: As the study has it.
        objectives: Names of its scores.
        limits: Names of the scores that must stay below a limit.
    """
    origin = str(trial.user_attrs.get("origin", "sampler"))
    who = f"trial {trial.number}" if origin in USUAL_ORIGINS else f"trial {trial.number} ({origin})"
    return f"{who}: {outcome_text(trial, objectives, limits)}  {params_text(trial.params)}"


def outcome_text(trial: FrozenTrial, objectives: Sequence[str], limits: Sequence[str]) -> str:
    """What became of a trial."""
    if trial.state is TrialState.COMPLETE:
        excess = trial.user_attrs.get("excess") or []
        beyond = [name for name, over in zip(limits, excess, strict=False) if over > 0]
        scores = "  ".join(f"{name} {value:.5g}" for name, value in zip(objectives, trial.values, strict=True))
        return scores + (f"  above the limit of {', '.join(beyond)}" if beyond else "")
    if trial.state is TrialState.PRUNED:
        curve = trial.intermediate_values
        at = f" after validation {max(curve)} at {curve[max(curve)]:.5g}" if curve else ""
        return f"pruned{at}"
    kind = trial.user_attrs.get("kind")
    reason = (str(trial.user_attrs.get("reason", "")).splitlines() or [""])[0]
    cut = reason if len(reason) <= MAX_REASON_LENGTH else reason[: MAX_REASON_LENGTH - 3] + "..."
    return STATE_WORDS[trial.state] + (f" ({kind}: {cut})" if kind else "")


def params_text(params: Mapping[str, Any]) -> str:
    """A configuration on one line, numbers short."""
    return "  ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in params.items())


def scores_text(found: Sequence[float]) -> str:
    """Scores on one line."""
    return " ".join(f"{value:.5g}" for value in found)


def duration_text(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
