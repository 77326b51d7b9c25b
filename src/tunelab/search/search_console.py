"""Terminal output of a search: announcement, progress (a live table, or plain lines), results."""

import os
import shlex
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tunelab.analysis.number_format import format_duration
from tunelab.config.quoting import path_word
from tunelab.config.schema import SearchConfig
from tunelab.errors import TuneLabError, visible_text
from tunelab.language.translation import labelled, message, translate
from tunelab.runs import console
from tunelab.runs.entry_script import script_option
from tunelab.runs.study_folder import StudyFolder
from tunelab.runs.terminal import (
    LiveLines,
    has_colours,
    is_terminal,
    join_fields,
    terminal_size,
    terminal_width,
    text_width,
)
from tunelab.search.pbt import GENERATION
from tunelab.search.samplers import resolve_sampler
from tunelab.search.search_config import SearchRequest
from tunelab.search.study_artifacts import write_study_report
from tunelab.search.study_results import STATE_WORDS, elapsed_time, median_duration, rank_trials, work_intervals
from tunelab.search.suggest import counted_trials

SAMPLER_TEXTS = {
    "grid": message("one for each combination"),
    "random": message("drawn at random"),
    "qmc": message("quasi-random (Sobol)"),
    "tpe": message("suggested by TPE"),
    "gp": message("suggested by a Gaussian process"),
    "cmaes": message("suggested by CMA-ES"),
    "evolution": message("suggested by NSGA-II"),
    "pbt": message("the stages of a population"),
}
PRUNER_TEXTS = {"median": message("the median rule"), "hyperband": "Hyperband", "asha": message("asynchronous halving")}
FAILURE_HINTS = {
    "timeout": message("search.trial_timeout=SECONDS gives each more time"),
    "memory": message("a lower micro_tokens or batch_size takes less memory"),
    "diverged": message("lower the upper end of lr"),
    "killed": message("somebody or the system killed them; watch the memory of the machine"),
    "config": message("their settings do not go together; narrow the space"),
}
MAX_FRONT_TRIALS = 5  # trials of a Pareto front that are printed


def announce_search(folder: StudyFolder, search: SearchConfig, request: SearchRequest, repairs: Sequence[str]) -> None:
    """Print budget, sampler, pruner and space of a search that starts."""
    budget = (
        translate("{count} [trial|trials]", count=search.trials)
        if search.trials is not None
        else translate("trials for {hours:g} [hour|hours]", hours=search.hours)
    )
    resolved = resolve_sampler(search.sampler, request.space, search.trials)
    sampler = SAMPLER_TEXTS.get(resolved)
    how = translate("suggested by {sampler}", sampler=resolved) if sampler is None else translate(sampler)
    words = {"budget": budget, "how": how, "parallel": search.parallel_trials}
    line = translate("search: {budget}, {how}, {parallel} at a time", **words)
    if search.pruner != "none":
        rule = translate(PRUNER_TEXTS.get(search.pruner, search.pruner))
        line = translate("{line}; pruned by {rule}", line=line, rule=rule)
    console.say(line)
    for line in [*repairs, *request.notes]:
        console.say(f"  {line}")
    if request.defaults_outside_space and search.default_trial and search.sampler != "grid":
        outside = ", ".join(request.defaults_outside_space)
        text = translate(
            "the default configuration is no trial, as it lies outside the space: {settings}", settings=outside
        )
        console.say(f"  {text}")
    console.say(translate("study folder: {path}", path=console.short_path(folder.root)))


def resume_command(folder: StudyFolder, arguments: Sequence[str]) -> str:
    """The command that resumes the search."""
    return f"{console.train_command()} -m {shlex.join([*arguments, path_word('hydra.sweep.dir', folder.root)])}"


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
            translate(
                "no trial has a result; {trials} says why, trial by trial. Once the cause is gone, "
                "the same command with search.retry=failed runs them again",
                trials=folder.trials,
            )
        )
    for line in best_trial_lines(best, trials, names):
        console.say(line)
    page = write_study_report(folder)
    console.show_paths(
        {
            translate("study"): folder.summary,
            translate("trials"): folder.trials,
            translate("best settings"): folder.best,
            translate("best run"): folder.trial_folder(best[0].number),
            translate("report"): page,
        }
    )
    log_report(page, {**dict(zip(names, best[0].values, strict=True)), "trials": len(trials)})
    if GENERATION in best[0].user_attrs:
        console.say(
            translate("its settings changed between stages (schedule in study.json); the result is that run itself")
        )
    else:
        best_settings = shlex.quote(path_word("experiment", relative_path(folder.root)))
        console.show_command(translate("train the best settings again"), f"{console.train_command()} {best_settings}")
        if len(names) == 1 and best[0].user_attrs.get("origin") != "default":
            confirm = f"tunelab confirm {shlex.quote(relative_path(folder.root))}{script_option()}"
            console.show_command(translate("re-run the best with new seeds"), confirm)
    if not finished:
        raise TuneLabError(translate("the search is not finished; the same command goes on"))


def outcome_counts(trials: Sequence[FrozenTrial]) -> list[str]:
    """Lines with the number of trials by state, and a hint for each kind of failure."""
    states = Counter(STATE_WORDS[trial.state] for trial in trials if trial.state.is_finished())
    above = sum(t.state is TrialState.COMPLETE and max(t.user_attrs.get("excess") or [0.0]) > 0 for t in trials)
    counts = ", ".join(f"{count} {translate(word)}" for word, count in states.items())
    lines = [translate("{count} [trial|trials]: {states}", count=sum(states.values()), states=counts)]
    if above:
        text = translate("{count} complete above a limit of search.constraints, so never best", count=above)
        lines.append(f"  {text}")
    kinds = Counter(str(trial.user_attrs.get("kind")) for trial in trials if trial.state is TrialState.FAIL)
    for kind, count in kinds.most_common():
        text = translate("{count} failed ({kind})", count=count, kind=kind)
        hint = [translate(FAILURE_HINTS[kind])] if kind in FAILURE_HINTS else []
        lines.append(f"  {translate('; ').join([text, *hint])}")
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
    compared = ""
    if default is not None:
        facts = {"number": default.number, "scores": scores(default)}
        compared = translate("; the default configuration, trial {number}: {scores}", **facts)
    if len(names) == 1:
        same = default is not None and default.number == best[0].number
        if same:
            return [
                translate(
                    "best is trial {number}, the default configuration, {scores}: the search found nothing better",
                    number=best[0].number,
                    scores=scores(best[0]),
                )
            ]
        first = translate("best: trial {number}, {scores}", number=best[0].number, scores=scores(best[0]))
        return [first + compared]
    more = len(best) - MAX_FRONT_TRIALS
    return [
        translate("the Pareto front, {count} of {trials} [trial|trials]", count=len(best), trials=len(trials))
        + compared,
        *(
            "  " + labelled(trial_label(trial.number), f"{scores(trial)}  {params_text(trial.params)}")
            for trial in best[:MAX_FRONT_TRIALS]
        ),
        *([translate("and {count} more, see study.json", count=more)] if more > 0 else []),
        translate("the files are of trial {number}, which has the best {score}", number=best[0].number, score=names[0]),
    ]


def trial_label(number: int) -> str:
    """A trial by its number, in words."""
    return translate("trial {number}", number=number)


def relative_path(path: Path) -> str:
    """A path relative to the working directory if it lies below, else absolute."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative if "/" in relative else f"./{relative}"


MAX_TABLE_TRIALS = 8  # finished trials in the live table
REFRESH_SECONDS = 2.0  # seconds between two updates of the live table
LEAST_SETTINGS_WIDTH = 24  # columns; where less is left beside the scores, the settings stand on lines of their own


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
        self.live = LiveLines() if is_terminal() else None
        self.lines: list[str] = []  # of the live table as it stands

    def __enter__(self) -> "ProgressDisplay":
        return self

    def __exit__(self, *fault: object) -> None:
        if self.live is not None:
            self.live.close()

    def say(self, text: str, *, good: str = "") -> None:
        """Print a line, above the live table where there is one."""
        console.say(text, good=good)
        if self.live is not None and self.lines:
            self.live.draw(self.lines)

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
                mark = self._best_mark(trial, ended)
                self.say(f"{line}  [{self.progress(trials)}]{mark}", good=mark.strip())
        if self.live is not None:
            self._draw(trials)

    def progress(self, trials: Sequence[FrozenTrial]) -> str:
        """Number of ended trials, and the estimated time left."""
        ended = [trial for trial in counted_trials(trials) if trial.state.is_finished()]
        done = (
            translate("{count} done", count=len(ended))
            if self.target_trials is None
            else translate("{count} of {total}", count=len(ended), total=self.target_trials)
        )
        seconds = self.seconds_left(trials)
        left = translate("about {time} left", time=format_duration(seconds, 2))
        return translate("{done}, {left}", done=done, left=left) if seconds > 0 else done

    def seconds_left(self, trials: Sequence[FrozenTrial]) -> float:
        """Estimated seconds until the search ends; 0 where nothing is known yet, or nothing is left."""
        ended = [trial for trial in counted_trials(trials) if trial.state.is_finished()]
        estimates = list[float]()
        if self.target_trials is not None:
            ages = [trial_seconds(trial) for trial in trials if trial.state is TrialState.RUNNING]
            left = self.target_trials - len(ended)
            estimates.append(remaining_seconds(left, ages, median_duration(ended), self.parallel_trials))
        if self.hours is not None:
            spent = elapsed_time(work_intervals(trials, time.time(), lambda trial: True))
            estimates.append(3600 * self.hours - spent)
        return min(estimates, default=0.0)

    def live_lines(self, trials: Sequence[FrozenTrial], width: int, height: int) -> list[str]:
        """The live table: how far the search is and when it ends, the best so far, what runs, the ranked trials.

        Args:
            trials: Every trial of the study.
            width: Columns of the terminal.
            height: Rows of the terminal; trials at the end of the ranking give way.
        """
        best = rank_trials(trials, self.directions)
        running = [trial for trial in trials if trial.state is TrialState.RUNNING]
        lines = join_fields(self._headline(trials), width)
        if best:
            which = (
                translate("best so far")
                if len(self.directions) == 1
                else translate("front, best {score}", score=self.objectives[0])
            )
            scores = zip(self.objectives, best[0].values, strict=True)
            values = [f"{name} {value:.5g}" for name, value in scores]
            lines += _hanging(
                [labelled(which, trial_label(best[0].number)), *values, *settings_texts(best[0].params)], width
            )
        for trial in running:
            lines += _hanging(
                [translate("running: trial {number}", number=trial.number), *self._running_fields(trial)], width
            )
        rows = trial_rows(best[:MAX_TABLE_TRIALS], self.objectives, width, front=len(self.directions) > 1)
        while len(rows) > 1 and sum(map(len, rows)) + len(lines) > height - 1:
            rows.pop()
        hidden = len(best) - (len(rows) - 1)
        more = [translate("{count} more in study.json", count=hidden)] if rows and hidden else []
        return [*lines, *(line for row in rows for line in row), *more][: max(1, height - 1)]

    def _headline(self, trials: Sequence[FrozenTrial]) -> list[str]:
        states = Counter(STATE_WORDS.get(trial.state, trial.state.name.lower()) for trial in counted_trials(trials))
        ended = sum(trial.state.is_finished() for trial in counted_trials(trials))
        done = (
            translate("{count} [trial|trials] ended", count=ended)
            if self.target_trials is None
            else translate("{count} of {total} [trial|trials] ended", count=ended, total=self.target_trials)
        )
        seconds = self.seconds_left(trials)
        end = time.strftime("%H:%M" if seconds < 43_200 else "%d %b %H:%M", time.localtime(time.time() + seconds))
        left = (
            translate("about {time} left, ends about {end}", time=format_duration(seconds, 2), end=end)
            if seconds > 0
            else ""
        )
        unknown = translate("time left: known once a trial has ended") if not left and not ended else ""
        return [
            translate("search: {done}", done=done),
            *(f"{count} {translate(word)}" for word, count in states.items()),
            *filter(None, [left, unknown]),
        ]

    def _running_fields(self, trial: FrozenTrial) -> list[str]:
        curve = trial.intermediate_values
        newest = (
            [translate("validation {number}", number=max(curve)), f"{self.objectives[0]} {curve[max(curve)]:.5g}"]
            if curve
            else []
        )
        return [format_duration(trial_seconds(trial), 2), *newest, *settings_texts(trial.params)]

    def _draw(self, trials: Sequence[FrozenTrial]) -> None:
        assert self.live is not None
        self.drawn_at = time.monotonic()
        width, height = (terminal_width() or 80) - 3, terminal_size().lines
        self.lines = [visible_text(line)[:width] for line in self.live_lines(trials, width, height)]
        if has_colours():
            words = translate("best so far")
            self.lines = [line.replace(words, f"\x1b[32m{words}\x1b[0m", line.startswith(words)) for line in self.lines]
        self.live.draw(self.lines)

    def _best_mark(self, trial: FrozenTrial, ended: Sequence[FrozenTrial]) -> str:
        best = [other.number for other in rank_trials(ended, self.directions)]
        if len(self.directions) > 1:
            return f"  {translate('on the front')}" if trial.number in best else ""
        return f"  {translate('best so far')}" if best[:1] == [trial.number] else ""


def trial_rows(
    ranked: Sequence[FrozenTrial], objectives: Sequence[str], width: int, *, front: bool = False
) -> list[list[str]]:
    """The head of a table of trials and its rows, each as lines no wider than `width`; nothing without trials.

    Args:
        ranked: The best first.
        objectives: Names of their scores.
        width: Columns.
        front: Whether they are a Pareto front, of which none is better than another.
    """
    if not ranked:
        return []
    heads = [translate("front" if front else "rank"), translate("trial"), *objectives, translate("time")]
    cells = [
        [
            "*" if front else str(place),
            str(trial.number),
            *(f"{value:.5g}" for value in trial.values),
            format_duration(trial_seconds(trial), 2),
        ]
        for place, trial in enumerate(ranked, 1)
    ]
    widths = [max(map(text_width, column)) for column in zip(heads, *cells, strict=True)]
    left = sum(widths) + 2 * len(widths)
    longest = max((text_width(text) for trial in ranked for text in settings_texts(trial.params)), default=0)
    beside = width - left >= max(LEAST_SETTINGS_WIDTH, longest)
    head = "  ".join(" " * (wide - text_width(head)) + head for head, wide in zip(heads, widths, strict=True))
    rows = [[head + f"  {translate('settings')}" * beside]]
    for row, trial in zip(cells, ranked, strict=True):
        line = "  ".join(f"{cell:>{wide}}" for cell, wide in zip(row, widths, strict=True))
        indent = left if beside else 4
        settings = join_fields(settings_texts(trial.params), width - indent) or [""]
        first = [f"{line}  {settings[0]}"] if beside else [line, f"{' ' * indent}{settings[0]}"]
        rows.append([*first, *(" " * indent + more for more in settings[1:])])
    return rows


def settings_texts(params: Mapping[str, Any]) -> list[str]:
    """The settings of a configuration, numbers with four digits."""
    return [f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in params.items()]


def _hanging(fields: Sequence[str], width: int) -> list[str]:
    """Fields on as many lines as they take, all but the first indented."""
    first, *rest = join_fields(fields, width - 2)
    return [first, *(f"  {line}" for line in rest)]


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
    label = trial_label(trial.number) if origin in USUAL_ORIGINS else f"{trial_label(trial.number)} ({origin})"
    return labelled(label, f"{outcome_text(trial, objectives, limits)}  {params_text(trial.params)}")


def outcome_text(trial: FrozenTrial, objectives: Sequence[str], limits: Sequence[str]) -> str:
    """The outcome of a trial: its scores, where it was pruned, or why it failed."""
    if trial.state is TrialState.COMPLETE:
        excess = trial.user_attrs.get("excess") or []
        exceeded = [name for name, amount in zip(limits, excess, strict=False) if amount > 0]
        scores = "  ".join(f"{name} {value:.5g}" for name, value in zip(objectives, trial.values, strict=True))
        above = translate("above the limit of {scores}", scores=", ".join(exceeded))
        return f"{scores}  {above}" if exceeded else scores
    if trial.state is TrialState.PRUNED:
        curve = trial.intermediate_values
        if not curve:
            return translate("pruned")
        newest = max(curve)
        return translate("pruned after validation {number} at {score:.5g}", number=newest, score=curve[newest])
    kind = trial.user_attrs.get("kind")
    reason = (str(trial.user_attrs.get("reason", "")).splitlines() or [""])[0]
    short = reason if len(reason) <= MAX_REASON_LENGTH else reason[: MAX_REASON_LENGTH - 3] + "..."
    return translate(STATE_WORDS[trial.state]) + (f" ({kind}: {short})" if kind else "")


def params_text(params: Mapping[str, Any]) -> str:
    """A configuration on one line, numbers with four digits."""
    return "  ".join(settings_texts(params))
