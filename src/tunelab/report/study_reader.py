"""Study folders, and sets of runs, read as trials for a report."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tunelab.analysis.configurations import (
    SEED,
    Configuration,
    Setting,
    Trial,
    group_by_configuration,
    is_number,
    seed_noise,
    setting_from_search_json,
    setting_from_trials,
)
from tunelab.config.flatten import flatten
from tunelab.config.stored_files import STUDY_FILE_ADVICE
from tunelab.language.translation import translate
from tunelab.report.formatting import format_count
from tunelab.report.run_reader import RunResults, short_fault
from tunelab.runs.atomic_files import read_json_lines
from tunelab.runs.run_status import COMPLETE_STATUSES
from tunelab.runs.stored_json import read_stored_json
from tunelab.runs.study_folder import StudyFolder
from tunelab.tasks.metrics.directions import metric_direction


@dataclass(frozen=True)
class StudyResults:
    """The files of a search, read for a report; or several runs as one study.

    Attributes:
        root: The study's folder; of a set, the folder that its runs share.
        score: What the trials are compared by.
        lower_is_better: Whether it is better when it is lower.
        trials: In the order they were started.
        varied_settings: What varied, without the seed.
        conditional: Settings that only some configurations have.
        fixed_overrides: Overrides that all trials share.
        arguments: What was typed after `-m`; empty where the study does not record it.
        sampler: Who proposed; empty of a set.
        summary: study.json.
        confirmation: confirm.json, where `tunelab confirm` was run.
        runs: The folder of each trial.
        objectives: All of them; the report follows the first.
        read_faults: What cannot be read, in sentences.
        script: What it records of a script of its user's own that started its trials.
    """

    root: Path
    score: str
    lower_is_better: bool
    trials: Sequence[Trial]
    varied_settings: Sequence[Setting]
    conditional: frozenset[str] = frozenset()
    fixed_overrides: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    sampler: str = ""
    summary: Mapping[str, Any] = field(default_factory=dict)
    confirmation: Mapping[str, Any] = field(default_factory=dict)
    runs: Mapping[int, Path] = field(default_factory=dict)
    objectives: tuple[str, ...] = ()
    read_faults: tuple[str, ...] = ()
    script: object = None

    @property
    def is_search(self) -> bool:
        """Whether it is a search, not a set of runs."""
        return bool(self.sampler)

    @cached_property
    def configurations(self) -> list[Configuration]:
        """Configurations over their seeds, the best first."""
        allowed = [trial for trial in self.trials if trial.number not in self.over_limit]
        return sorted(
            group_by_configuration(allowed, lower=self.lower_is_better),
            key=lambda point: (point.cost, point.trial_numbers),
        )

    @cached_property
    def over_limit(self) -> frozenset[int]:
        """Numbers of the trials above a limit of the search: they are never best."""
        return frozenset(self.summary.get("over_limit", ()))

    @cached_property
    def seed_noise(self) -> float:
        """Standard deviation over the seeds of one configuration; nan where none was run twice."""
        return seed_noise(self.configurations)

    @property
    def best(self) -> Configuration | None:
        """The best configuration; None without a complete trial."""
        return self.configurations[0] if self.configurations else None

    @property
    def default_is_best(self) -> bool:
        """Whether the best configuration is the default, which a search runs first."""
        numbers = self.best.trial_numbers if self.best else ()
        return any(self.trial(number).origin == "default" for number in numbers)

    def cost_to_score(self, cost: float) -> float:
        """The score of a cost: its negative where higher is better."""
        return cost if self.lower_is_better else -cost

    def trial(self, number: int) -> Trial:
        """A trial by its number."""
        return next(trial for trial in self.trials if trial.number == number)


def read_study_results(root: Path) -> StudyResults:
    """The results of a study; a file that cannot be read becomes a sentence in `read_faults`."""
    folder, missing = StudyFolder(root), list[str]()

    def read(path: Path, what: str, *, needed: bool = True) -> dict[str, Any]:
        try:
            return read_stored_json(path, STUDY_FILE_ADVICE)
        except (OSError, ValueError) as fault:
            if path.exists():
                missing.append(
                    translate(
                        "{name} cannot be read ({fault}), so this report lacks {what}",
                        name=path.name,
                        fault=short_fault(fault),
                        what=what,
                    )
                )
            elif needed:
                missing.append(translate("{name} is missing, so this report lacks {what}", name=path.name, what=what))
            return {}

    summary = read(folder.summary, translate("how the search was set up"))
    request = read(folder.study_config, translate("its search space: boundaries are those of what was tried"))
    try:
        lines = read_json_lines(folder.trials)
    except (OSError, ValueError) as fault:
        missing.append(
            translate("trials.jsonl cannot be read ({fault}), so this report has no trials", fault=short_fault(fault))
        )
        lines = []
    trials = [parse_trial(line) for line in lines if isinstance(line, dict) and isinstance(line.get("number"), int)]
    objectives = tuple(map(str, summary.get("objectives") or request.get("objectives") or ("score",)))
    ways = [*(summary.get("directions") or ()), *(request.get("modes") or ())]
    way = str(ways[0]) if ways else metric_direction(objectives[0])
    if way is None:
        missing.append(
            translate(
                "nothing says which way {objectives} is better, so this report takes a lower one for better",
                objectives=objectives[0],
            )
        )
    lower = way is None or way.startswith("min")
    blocks = request.get("dimensions") or {}
    over = [line["number"] for line in lines if max(line.get("excess") or [0.0]) > 0]
    return StudyResults(
        root,
        objectives[0],
        lower,
        trials,
        [one for one in varied_settings(blocks, trials) if one.name != SEED],
        frozenset(name for name, block in blocks.items() if "when" in block),
        tuple(map(str, request.get("fixed") or summary.get("fixed") or ())),
        tuple(map(str, request.get("arguments") or ())),
        str(summary.get("sampler") or "search"),
        {**summary, "over_limit": over},
        read(folder.confirmation, "", needed=False),
        {trial.number: root / str(trial.number) for trial in trials if (root / str(trial.number)).is_dir()},
        objectives,
        tuple(missing),
        request.get("script"),
    )


def parse_trial(line: Mapping[str, Any]) -> Trial:
    """A line of trials.jsonl as a trial."""
    values = [value for value in line.get("values") or [line.get("value")] if is_number(value)]
    curve = [(float(step), float(value)) for step, value in (line.get("curve") or {}).items() if is_number(value)]
    return Trial(
        int(line["number"]),
        str(line.get("state")),
        dict(line.get("params") or {}),
        float(values[0]) if values else None,
        float(line["seconds"]) if is_number(line.get("seconds")) else None,
        str(line.get("kind") or ""),
        str(line.get("reason") or ""),
        tuple(sorted(curve)),
        {name: float(value) for name, value in (line.get("scores") or {}).items() if is_number(value)},
        tuple(map(str, line.get("overrides") or ())),
        translate("trial {number}", number=line["number"]),
        str(line.get("origin") or ""),
    )


def varied_settings(blocks: Mapping[str, Any], trials: Sequence[Trial]) -> list[Setting]:
    """The settings that vary: from the search space if it is known, else from the trials."""
    names = list(dict.fromkeys([*blocks, *(name for trial in trials for name in trial.params)]))
    settings = []
    for name in names:
        tried = [trial.params[name] for trial in trials if name in trial.params]
        try:
            settings.append(setting_from_search_json(name, blocks[name]))
        except (KeyError, TypeError, ValueError):
            settings.append(setting_from_trials(name, tried))
    return settings


IGNORED_SETTINGS = (
    "hydra",
    "logger",
    "name",
    "lang",
    "resume",
    "save",
    "search",
    "test",
    "trial",
    "trainer.logger",
)  # say nothing of how it trained


def runs_as_study(runs: Sequence[RunResults]) -> StudyResults:
    """Runs as the trials of a study, in the order of the paths."""
    followed = Counter(run.monitor for run in runs if run.monitor)
    score = followed.most_common(1)[0][0] if followed else ""
    missing = [f"{run.name}: {text}" for run in runs for text in run.read_faults if "run.json" in text]
    others = [run.name for run in runs if run.monitor and run.monitor != score]
    if others:
        missing.append(
            translate(
                "{runs} followed another score than {score} and cannot be ranked by it",
                runs=format_count(len(others), "run"),
                score=score,
            )
        )
    settings = [scalar_settings(run) for run in runs]
    varied = [
        name
        for name in dict.fromkeys(name for one in settings for name in one)
        if len({repr(one.get(name)) for one in settings}) > 1
    ]
    trials = [
        run_as_trial(at, run, score, {n: one[n] for n in varied if n in one})
        for at, (run, one) in enumerate(zip(runs, settings, strict=True))
    ]
    lower = next((run.lower_is_better for run in runs if run.monitor == score), True)
    axes = [setting_from_trials(n, [t.params[n] for t in trials if n in t.params]) for n in varied if n != SEED]
    return StudyResults(
        Path(os.path.commonpath([run.root.absolute() for run in runs])),
        score or "score",
        lower,
        trials,
        axes,
        runs={at: run.root for at, run in enumerate(runs)},
        objectives=(score,),
        read_faults=tuple(missing),
    )


def scalar_settings(run: RunResults) -> dict[str, Any]:
    """The settings of a run that are one plain value and shape its training."""
    settings = flatten(run.config)
    return {
        name: value
        for name, value in settings.items()
        if not any(name == one or name.startswith(f"{one}.") for one in IGNORED_SETTINGS)
        and (value is None or isinstance(value, str | int | float | bool))
    }


def run_as_trial(number: int, run: RunResults, score: str, params: dict[str, Any]) -> Trial:
    """A run as a trial of a study."""
    value = run.best.get("value") if run.monitor == score else None
    state = "complete" if run.status in COMPLETE_STATUSES else "pruned" if run.status == "pruned" else "failed"
    curve = tuple((row["step"] + 1, row[score]) for row in run.curves if score in row and "step" in row)
    return Trial(
        number,
        state,
        params,
        float(value) if isinstance(value, int | float) else None,
        float(run.manifest["seconds"]) if isinstance(run.manifest.get("seconds"), int | float) else None,
        run.status if state == "failed" else "",
        str(run.manifest.get("reason") or ""),
        curve,
        dict(run.scores),
        tuple(map(str, run.manifest.get("overrides") or ())),
        run.name,
    )
