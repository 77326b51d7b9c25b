"""Terminal output of a search: announcement, progress (a live table, or plain lines), results."""

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

from tunelab.analysis.number_format import format_duration
from tunelab.config.quoting import path_word
from tunelab.config.schema import SearchConfig
from tunelab.errors import TuneLabError
from tunelab.runs import console
from tunelab.runs.study_folder import StudyFolder
from tunelab.search.pbt import GENERATION
from tunelab.search.samplers import resolve_sampler
from tunelab.search.search_config import SearchRequest
from tunelab.search.study_artifacts import write_study_report
from tunelab.search.study_results import STATE_WORDS, elapsed_time, median_duration, rank_trials, work_intervals
from tunelab.search.suggest import counted_trials

SAMPLER_TEXTS = {
    "grid": "one for each combination",
    "random": "drawn at random",
    "qmc": "quasi-random (Sobol)",
    "tpe": "suggested by TPE",
    "gp": "suggested by a Gaussian process",
    "cmaes": "suggested by CMA-ES",
    "evolution": "suggested by NSGA-II",
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
MAX_FRONT_TRIALS = 5  # trials of a Pareto front that are printed


def announce_search(folder: StudyFolder, search: SearchConfig, request: SearchRequest, repairs: Sequence[str]) -> None:
    """Print budget, sampler, pruner and space of a search that starts."""
    budget = f"{search.trials} trials" if search.trials is not None else f"trials for {search.hours:g} hours"
    pruner = "" if search.pruner == "none" else f"; pruned by {PRUNER_TEXTS.get(search.pruner, search.pruner)}"
    resolved = resolve_sampler(search.sampler, request.space, search.trials)
    sampler = SAMPLER_TEXTS.get(resolved, f"suggested by {resolved}")
    console.say(f"search: {budget}, {sampler}, {search.parallel_trials} at a time{pruner}")
    for line in [*repairs, *request.notes]:
        console.say(f"  {line}")
    if request.defaults_outside_space and search.default_trial and search.sampler != "grid":
        outside = ", ".join(request.defaults_outside_space)
        console.say(f"  the default configuration is no trial, as it lies outside the space: {outside}")
    console.say(f"study folder: {folder.root}")


def resume_hint(folder: StudyFolder, arguments: Sequence[str]) -> str:
    """The command that resumes the search."""
    words = shlex.join([*arguments, path_word("hydra.sweep.dir", folder.root)])
    return f"go on with: {console.train_command()} -m {words}"


def announce_results(
    folder: StudyFolder,
    study: optuna.Study,
    names: Sequence[str],
    finished: bool,
    log_report: Callable[[Path, Mapping[str, float]], None],
) -> None:
    """Print the results of a search and write its report.

    Args:
        folder: The study's files.
        study: The study of Optuna.
        names: Names of the objectives.
        finished: Whether the budget is spent.
        log_report: Logs the report and the best values to a tracker.

    Raises:
        TuneLabError: If no trial has a result, or the search is not finished.
    """
    trials = counted_trials(study.get_trials(deepcopy=False))
    best = rank_trials(trials, study.directions)
    for line in outcome_counts(trials):
        console.say(line)
    if not best:
        raise TuneLabError(
            f"no trial has a result; {folder.trials} says why, trial by trial. Once the cause is gone, the same "
            "command with search.retry=failed runs them again"
        )
    for line in best_trial_lines(best, trials, names):
        console.say(line)
    page = write_study_report(folder)
    console.show_paths(
        {
            "study": folder.summary,
            "trials": folder.trials,
            "best settings": folder.best,
            "best run": folder.trial_folder(best[0].number),
            "report": page,
        }
    )
    log_report(page, {**dict(zip(names, best[0].values, strict=True)), "trials": len(trials)})
    if GENERATION in best[0].user_attrs:
        console.say("its settings changed from stage to stage (schedule in study.json); the result is that run itself")
    else:
        best_settings = shlex.quote(path_word("experiment", relative_path(folder.root)))
        console.say(f"run it again with: {console.train_command()} {best_settings}")
        if len(names) == 1 and best[0].user_attrs.get("origin") != "default":
            console.say(f"was it luck? tunelab confirm {shlex.quote(relative_path(folder.root))}")
    if not finished:
        raise TuneLabError("the search is not finished; the same command goes on")


def outcome_counts(trials: Sequence[FrozenTrial]) -> list[str]:
    """Lines with the number of trials by state, and a hint for each kind of failure."""
    states = Counter(STATE_WORDS[trial.state] for trial in trials if trial.state.is_finished())
    above = sum(t.state is TrialState.COMPLETE and max(t.user_attrs.get("excess") or [0.0]) > 0 for t in trials)
    lines = [f"{sum(states.values())} trials: " + ", ".join(f"{count} {word}" for word, count in states.items())]
    if above:
        lines.append(f"  {above} complete above a limit of search.constraints, so never best")
    kinds = Counter(str(trial.user_attrs.get("kind")) for trial in trials if trial.state is TrialState.FAIL)
    for kind, count in kinds.most_common():
        hint = f"; {FAILURE_HINTS[kind]}" if kind in FAILURE_HINTS else ""
        lines.append(f"  {count} failed ({kind}){hint}")
    return lines


def best_trial_lines(best: Sequence[FrozenTrial], trials: Sequence[FrozenTrial], names: Sequence[str]) -> list[str]:
    """Lines with the best trial and the default one, or with the Pareto front.

    Args:
        best: Trials as `rank_trials` orders them.
        trials: Every trial that counts.
        names: Names of the objectives.
    """

    def scores(trial: FrozenTrial) -> str:
        return ", ".join(f"{name} {value:.6g}" for name, value in zip(names, trial.values, strict=True))

    complete = [trial for trial in trials if trial.values is not None and GENERATION not in trial.user_attrs]
    default = next((trial for trial in complete if trial.user_attrs.get("origin") == "default"), None)
    compared = f"; the default configuration, trial {default.number}: {scores(default)}" if default is not None else ""
    if len(names) == 1:
        same = default is not None and default.number == best[0].number
        note = "; that is the default configuration: the search found nothing better" if same else compared
        return [f"best: trial {best[0].number}, {scores(best[0])}{note}"]
    more = f" and {len(best) - MAX_FRONT_TRIALS} more, see study.json" if len(best) > MAX_FRONT_TRIALS else ""
    return [
        f"the Pareto front, {len(best)} of {len(trials)} trials{compared}",
        *(f"  trial {trial.number}: {scores(trial)}  {params_text(trial.params)}" for trial in best[:MAX_FRONT_TRIALS]),
        *([more.strip()] if more else []),
        f"the files are about trial {best[0].number}, the one with the best {names[0]}",
    ]


def relative_path(path: Path) -> str:
    """A path relative to the working directory if it lies below, else absolute."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative if "/" in relative else f"./{relative}"


MAX_TABLE_TRIALS = 8  # finished trials in the live table
REFRESH_SECONDS = 2.0  # seconds between two updates of the live table


class ProgressDisplay:
    """The progress of a search: a line for each ended trial, and a live table on a terminal.

    Args:
        target_trials: Number of trials to reach; None if unknown.
        objectives: Names of the objectives.
        directions: Directions of the objectives.
        limits: Names of the scores with a limit.
        parallel_trials: Trials that run at a time.
        hours: Time after which no trial starts; None for no limit.
    """

    def __init__(
        self,
        target_trials: int | None,
        objectives: Sequence[str],
        directions: Sequence[StudyDirection],
        limits: Sequence[str] = (),
        parallel_trials: int = 1,
        hours: float | None = None,
    ) -> None:
        self.target_trials, self.parallel_trials, self.hours = target_trials, parallel_trials, hours
        self.objectives, self.directions, self.limits = objectives, directions, limits
        self.announced: set[int] | None = None
        self.drawn_at = float("-inf")
        # bound now: a training in this process redirects sys.stdout, and the table must not end up in its log
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
        """Print a line above the live table."""
        if self.live is not None:
            self.live.console.print(text, markup=False, highlight=False)
        else:
            console.say(text)

    def refresh(self, trials: Callable[[], Sequence[FrozenTrial]]) -> None:
        """Update the live table, if there is one and `REFRESH_SECONDS` have passed."""
        if self.live is not None and time.monotonic() - self.drawn_at > REFRESH_SECONDS:
            self._draw(trials())

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Print a line for each trial that has ended since the last call, and update the live table."""
        ended = [trial for trial in counted_trials(trials) if trial.state.is_finished()]
        if self.announced is None:  # trials of earlier commands were announced then
            self.announced = {trial.number for trial in ended}
        for trial in ended:
            if trial.number not in self.announced:
                self.announced.add(trial.number)
                line = trial_line(trial, self.objectives, self.limits)
                self.say(f"{line}  [{self.progress(trials)}]{self._best_mark(trial, ended)}")
        if self.live is not None:
            self._draw(trials)

    def progress(self, trials: Sequence[FrozenTrial]) -> str:
        """Number of ended trials, and the estimated time left."""
        ended = [trial for trial in counted_trials(trials) if trial.state.is_finished()]
        done = f"{len(ended)} done" if self.target_trials is None else f"{len(ended)} of {self.target_trials}"
        estimates = list[float]()
        if self.target_trials is not None:
            ages = [trial_seconds(trial) for trial in trials if trial.state is TrialState.RUNNING]
            left = self.target_trials - len(ended)
            estimates.append(remaining_seconds(left, ages, median_duration(ended), self.parallel_trials))
        if self.hours is not None:
            spent = elapsed_time(work_intervals(trials, time.time(), lambda trial: True))
            estimates.append(3600 * self.hours - spent)
        seconds = min(estimates, default=0.0)
        return done + (f", about {format_duration(seconds, 2)} left" if seconds > 0 else "")

    def table(self, trials: Sequence[FrozenTrial]) -> Table:
        """The live table: the running trials, then the best ones."""
        best = rank_trials(trials, self.directions)
        states = Counter(STATE_WORDS.get(trial.state, trial.state.name.lower()) for trial in counted_trials(trials))
        counts = ", ".join(f"{count} {word}" for word, count in states.items())
        title = f"{self.progress(trials)}: {counts}" if counts else self.progress(trials)
        grid = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for name in ("trial", "state", "validations", " ".join(self.objectives), "time", "settings"):
            grid.add_column(name, overflow="fold", no_wrap=name in ("trial", "time"))
        running = [trial for trial in trials if trial.state is TrialState.RUNNING]
        for trial in [*running, *best[:MAX_TABLE_TRIALS]]:
            curve = trial.intermediate_values
            score = scores_text(trial.values) if trial.values is not None else scores_text(list(curve.values())[-1:])
            state, validations = STATE_WORDS.get(trial.state, "running"), str(len(curve) or "")
            time_text, params = format_duration(trial_seconds(trial), 2), params_text(trial.params)
            grid.add_row(str(trial.number), state, validations, score, time_text, params)
        return grid

    def _draw(self, trials: Sequence[FrozenTrial]) -> None:
        assert self.live is not None
        self.drawn_at = time.monotonic()
        self.live.update(self.table(trials))

    def _best_mark(self, trial: FrozenTrial, ended: Sequence[FrozenTrial]) -> str:
        best = [other.number for other in rank_trials(ended, self.directions)]
        if len(self.directions) > 1:
            return "  on the front" if trial.number in best else ""
        return "  best so far" if best[:1] == [trial.number] else ""


def trial_seconds(trial: FrozenTrial) -> float:
    """Running time of a trial in seconds, over all its sessions."""
    earlier = sum(float(end) - float(start) for start, end in trial.user_attrs.get("sessions", []))
    if trial.state is not TrialState.RUNNING or "began" not in trial.user_attrs:
        return earlier
    return earlier + max(0.0, time.time() - float(trial.user_attrs["began"]))


def remaining_seconds(left: int, ages: Sequence[float], duration: float, parallel_trials: int) -> float:
    """Seconds until a search is done, if every trial takes the same time; 0 where that time is unknown.

    Args:
        left: Trials that have not ended, running ones included.
        ages: Seconds that the running ones have run.
        duration: Seconds of a trial; 0 if unknown.
        parallel_trials: Trials that run at a time.

    Example:
        >>> remaining_seconds(4, [10.0, 0.0], 60.0, 2)
        115.0
    """
    running = sum(max(0.0, duration - age) for age in ages[:left])
    work = running + duration * max(0, left - len(ages))
    return work / max(1, min(left, max(parallel_trials, len(ages))))


USUAL_ORIGINS = ("sampler", "grid")  # the usual origins of a configuration, which are not printed
MAX_REASON_LENGTH = 120  # characters of a reason


def trial_line(trial: FrozenTrial, objectives: Sequence[str], limits: Sequence[str] = ()) -> str:
    """One line for a trial that has ended.

    Args:
        trial: The trial.
        objectives: Names of the objectives.
        limits: Names of the scores with a limit.
    """
    origin = str(trial.user_attrs.get("origin", "sampler"))
    label = f"trial {trial.number}" if origin in USUAL_ORIGINS else f"trial {trial.number} ({origin})"
    return f"{label}: {outcome_text(trial, objectives, limits)}  {params_text(trial.params)}"


def outcome_text(trial: FrozenTrial, objectives: Sequence[str], limits: Sequence[str]) -> str:
    """The outcome of a trial: its scores, where it was pruned, or why it failed."""
    if trial.state is TrialState.COMPLETE:
        excess = trial.user_attrs.get("excess") or []
        exceeded = [name for name, amount in zip(limits, excess, strict=False) if amount > 0]
        scores = "  ".join(f"{name} {value:.5g}" for name, value in zip(objectives, trial.values, strict=True))
        return scores + (f"  above the limit of {', '.join(exceeded)}" if exceeded else "")
    if trial.state is TrialState.PRUNED:
        curve = trial.intermediate_values
        at = f" after validation {max(curve)} at {curve[max(curve)]:.5g}" if curve else ""
        return f"pruned{at}"
    kind = trial.user_attrs.get("kind")
    reason = (str(trial.user_attrs.get("reason", "")).splitlines() or [""])[0]
    short = reason if len(reason) <= MAX_REASON_LENGTH else reason[: MAX_REASON_LENGTH - 3] + "..."
    return STATE_WORDS[trial.state] + (f" ({kind}: {short})" if kind else "")


def params_text(params: Mapping[str, Any]) -> str:
    """A configuration on one line, numbers with four digits."""
    return "  ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in params.items())


def scores_text(scores: Sequence[float]) -> str:
    """Scores on one line."""
    return " ".join(f"{value:.5g}" for value in scores)
