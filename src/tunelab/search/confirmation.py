"""Confirm a study: train its best configurations and the default with new seeds, compare them by paired t tests."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count as numbers_from
from itertools import islice, pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy import stats

from tunelab.analysis.configurations import configuration_key
from tunelab.config.plugins import refuse_process_keys
from tunelab.config.quoting import path_word
from tunelab.errors import ConfigError, TuneLabError
from tunelab.language.translation import translate
from tunelab.runs.atomic_files import read_json_lines
from tunelab.runs.redact import REDACTED
from tunelab.runs.run_dir import RunDirectory
from tunelab.runs.study_folder import StudyFolder
from tunelab.search.study_config import changed_data
from tunelab.search.trial_outcome import TrialOutcome, read_outcome
from tunelab.search.trial_process import Executor, Job

FIRST_SEED = 1000  # far from the seeds of searches, so that no run of the search is repeated
DEFAULT_LABEL = "default"


@dataclass(frozen=True)
class Rerun:
    """One training of a confirmation.

    Attributes:
        label: `default`, or `trial N`.
        seed: Seed of the training.
        overrides: Its overrides, without the seed.
        folder: Its run directory.
    """

    label: str
    seed: int
    overrides: tuple[str, ...]
    folder: Path


def plan_reruns(study: StudyFolder, top: int, seeds: int) -> tuple[list[Rerun], dict[str, Any]]:
    """The trainings to do, the default first, and the configuration of the study; none where the default is its best.

    Raises:
        ConfigError: If the folder is no study with a result.
    """
    try:
        config = study.read_study_config()
        trials = read_json_lines(study.trials)
    except (OSError, ValueError) as fault:
        raise ConfigError(
            translate(
                "{root} is no study ({fault}); give the study folder that a search printed",
                root=study.root,
                fault=fault,
            )
        ) from fault
    if len(config["objectives"]) != 1:
        raise ConfigError(
            translate(
                "{root} has {count} [objective|objectives]; only one can be confirmed",
                root=study.root,
                count=len(config["objectives"]),
            )
        )
    if config.get("stages"):
        raise ConfigError(
            translate(
                "{root} searched for a schedule that changes within a run, so it has no configuration to confirm",
                root=study.root,
            )
        )
    if changed := changed_data(study):
        raise ConfigError.listing(
            [
                *changed,
                translate(
                    "new trainings could not be compared with those of the search; put the former data "
                    "back, or search anew"
                ),
            ]
        )
    complete = [trial for trial in trials if trial["state"] == "complete" and max(trial["excess"] or [0.0]) <= 0]
    if not complete:
        raise ConfigError(translate("{root} has no finished trial; run the search first", root=study.root))
    ranked = rank_configurations(complete, config)
    if ranked[0] is None:
        return [], config
    candidates = [trial for trial in ranked if trial is not None][:top]
    configurations = {DEFAULT_LABEL: list[str]()}
    configurations |= {f"trial {trial['number']}": trial["overrides"] for trial in candidates}
    # where the options of a folder of the user's own lie, which the fixed overrides may name
    beside = [word for word in config.get("arguments", []) if word.startswith("hydra.searchpath=")]
    fixed, reruns = without_secrets(config["fixed"], study), []
    for seed in fresh_seeds([*fixed, *(word for trial in trials for word in trial["overrides"])], seeds):
        for label, overrides in configurations.items():
            folder = study.confirmation.parent / label.replace(" ", "_") / str(seed)
            reruns.append(Rerun(label, seed, (*beside, *fixed, *overrides), folder))
    return reruns, config


def fresh_seeds(overrides: Iterable[str], count: int) -> list[int]:
    """Seeds from `FIRST_SEED` on that no override of a search has: the same seed would only repeat its run.

    Example:
        >>> fresh_seeds(["seed=1001", "lr=1e-3"], 3)
        [1000, 1002, 1003]
    """
    taken = set(overrides)
    return list(islice((seed for seed in numbers_from(FIRST_SEED) if f"seed={seed}" not in taken), count))


def without_secrets(fixed: Sequence[str], study: StudyFolder) -> list[str]:
    """The overrides of a study without those of loggers whose value was blacked out, which change no score.

    Raises:
        ConfigError: If another one was: without its value the trainings would be others.
    """
    lost = [word for word in fixed if REDACTED in word and not word.lstrip("+").startswith("logger")]
    if lost:
        names = ", ".join(word.partition("=")[0] for word in lost)
        raise ConfigError(
            translate(
                "{study_config} does not hold the value of {names}, which was blacked out as a "
                "secret; without it the trainings would be others. Give it by an environment "
                "variable of another name, and search again",
                study_config=study.study_config,
                names=names,
            )
        )
    return [word for word in fixed if REDACTED not in word]


def rank_configurations(
    complete: Sequence[Mapping[str, Any]], config: Mapping[str, Any]
) -> list[Mapping[str, Any] | None]:
    """The first trial of each configuration, the best mean over its seeds first; None stands for the default.

    Args:
        complete: Lines of `trials.jsonl` with a score.
        config: The configuration of the study: it knows the default, which a grid runs without saying so.
    """
    sign = 1.0 if config["modes"][0] == "min" else -1.0
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for trial in complete:
        groups.setdefault(configuration_key(trial["params"]), []).append(trial)
    ranked = sorted(groups.items(), key=lambda group: sign * mean(trial["value"] for trial in group[1]))
    default = configuration_key(config["default"]) if config.get("default") else None
    return [
        None if key == default or any(trial["origin"] == DEFAULT_LABEL for trial in group) else group[0]
        for key, group in ranked
    ]


def run_reruns(
    reruns: Sequence[Rerun],
    config: Mapping[str, Any],
    command: Sequence[str],
    slots: Sequence[Mapping[str, str]],
    say: Callable[[str], None],
    executor: Executor,
) -> dict[str, dict[int, TrialOutcome]]:
    """Outcomes of all trainings by label and seed; those that are not finished yet are run.

    Args:
        reruns: The trainings.
        config: The configuration of the study.
        command: The command of a training.
        slots: Additional environment variables of each slot.
        say: Prints a line.
        executor: Starts the trainings.

    Raises:
        TuneLabError: If a training fails: an incomplete comparison would mislead.
    """
    objective = "monitor" if config.get("monitored", True) else config["objectives"][0]
    waiting, running = list(reruns), dict[int, tuple[Rerun, Job]]()
    outcomes: dict[str, dict[int, TrialOutcome]] = {}
    try:
        while waiting or running:
            for slot, (rerun, job) in list(running.items()):
                status = job.poll()
                if status is not None:
                    del running[slot]
                    record_rerun(outcomes, rerun, read_outcome(rerun.folder, status, [objective]), say)
            for slot in range(len(slots)):
                while waiting and slot not in running:
                    earlier = read_outcome(waiting[0].folder, 0, [objective])
                    if earlier.state == "complete":
                        rerun = waiting.pop(0)
                        outcomes.setdefault(rerun.label, {})[rerun.seed] = earlier
                        continue
                    if not executor.is_ready(slots[slot]):
                        break
                    rerun = waiting.pop(0)
                    running[slot] = rerun, start_rerun(rerun, command, slots[slot], executor)
            time.sleep(0.05)
    finally:
        for _, job in running.values():
            job.stop()
    return outcomes


def start_rerun(rerun: Rerun, command: Sequence[str], environment: Mapping[str, str], executor: Executor) -> Job:
    """Start a training, or resume one that was interrupted."""
    run_dir = path_word("hydra.run.dir", rerun.folder)
    if RunDirectory(rerun.folder).exists():
        overrides = [path_word("resume", rerun.folder), run_dir]
    else:
        settings = [override for override in refuse_process_keys(rerun.overrides) if not override.startswith("seed=")]
        overrides = [*settings, f"seed={rerun.seed}", "test=false", "save=false", run_dir]
    return executor.start([*command, *overrides], rerun.folder, environment)


def record_rerun(
    outcomes: dict[str, dict[int, TrialOutcome]], rerun: Rerun, outcome: TrialOutcome, say: Callable[[str], None]
) -> None:
    """Add the outcome of a training and print its score.

    Raises:
        TuneLabError: If it failed.
    """
    if outcome.state != "complete":
        raise TuneLabError(
            translate(
                "{label} with seed {seed} failed ({failure_kind}: {reason}); without it the "
                "comparison would be lopsided. Its output is in {folder}/trial.log; the same command "
                "goes on",
                label=rerun.label,
                seed=rerun.seed,
                failure_kind=outcome.failure_kind,
                reason=outcome.reason,
                folder=rerun.folder,
            )
        )
    outcomes.setdefault(rerun.label, {})[rerun.seed] = outcome
    say(translate("{label}, seed {seed}: {values:.5g}", label=rerun.label, seed=rerun.seed, values=outcome.values[0]))


SIGNIFICANCE_LEVEL = 0.05  # accepted rate of false positives, over all configurations together
MIN_SEEDS = 3  # with two, chance makes gains agree too often where scores come in steps or runs fail (bench/intervals)
SAME_SCORE = 1e-9  # of the largest score: closer ones are equal but for rounding


@dataclass(frozen=True)
class MeanInterval:
    """The mean score of one configuration over seeds.

    Attributes:
        mean: The mean.
        low, high: Its 95 % confidence interval, by Student's t.
        seeds: Number of seeds.
    """

    mean: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True)
class Comparison:
    """A configuration against the default, seed by seed.

    Attributes:
        gain: Mean difference; positive is better, whichever way the score goes.
        low, high: Its 95 % confidence interval.
        p: Its p value (paired t test, two-sided).
        corrected: The p value after Holm's correction for several configurations.
        adopt: Whether the gain is significant: positive, `corrected` at most `SIGNIFICANCE_LEVEL`, of `MIN_SEEDS`.
        provable: The least gain that these seeds would prove at this spread.
    """

    gain: float
    low: float
    high: float
    p: float
    corrected: float
    adopt: bool
    provable: float = math.inf


def mean_interval(scores: Sequence[float], resolution: float = 0.0) -> MeanInterval:
    """Mean and confidence interval; the interval of a single score has no bounds.

    Args:
        scores: One for each seed.
        resolution: Steps in which scores come: equal ones need not be equal before they are rounded.
    """
    if len(scores) < 2:
        return MeanInterval(scores[0], -math.inf, math.inf, len(scores))
    reach = standard_error(scores, resolution) * float(stats.t.ppf(1 - SIGNIFICANCE_LEVEL / 2, len(scores) - 1))
    return MeanInterval(mean(scores), mean(scores) - reach, mean(scores) + reach, len(scores))


def standard_error(values: Sequence[float], resolution: float) -> float:
    """The standard error of a mean, not below that of rounding to steps, each value being off by up to one."""
    return max(stdev(values), resolution / math.sqrt(6)) / math.sqrt(len(values))


def score_resolution(scores: Iterable[float]) -> float:
    """The smallest step between scores that differ: shares of few rows come in steps of one row; 0 if none differ."""
    ordered = sorted(scores)
    least = SAME_SCORE * max(map(abs, ordered), default=0.0)
    return min((high - low for low, high in pairwise(ordered) if high - low > least), default=0.0)


def compare_with_default(
    candidates: Sequence[Sequence[float]], default: Sequence[float], mode: str
) -> list[Comparison]:
    """One comparison for each candidate, corrected for their number (Holm 1979).

    Args:
        candidates: Scores of each configuration, seed by seed.
        default: Scores of the default, for the same seeds in the same order.
        mode: Direction of the score, `min` or `max`.
    """
    sign = -1.0 if mode == "min" else 1.0
    resolution = score_resolution([*default, *(score for scores in candidates for score in scores)])
    sign = sign if resolution else 0.0  # all scores are equal but for rounding
    gains = [[sign * (one - other) for one, other in zip(scores, default, strict=True)] for scores in candidates]
    intervals = [mean_interval(gain, resolution) for gain in gains]
    p_values = [paired_p_value(gain, resolution) for gain in gains]
    enough = len(default) >= MIN_SEEDS
    return [
        Comparison(
            gain.mean,
            gain.low,
            gain.high,
            p,
            corrected,
            enough and corrected <= SIGNIFICANCE_LEVEL and gain.mean > 0,
            provable_gain(values, resolution, len(candidates)),
        )
        for values, gain, p, corrected in zip(gains, intervals, p_values, holm_correction(p_values), strict=True)
    ]


def provable_gain(gains: Sequence[float], resolution: float, comparisons: int) -> float:
    """The least mean gain that as many seeds prove where gains spread like these; infinite with too few seeds."""
    if len(gains) < MIN_SEEDS:
        return math.inf
    level = SIGNIFICANCE_LEVEL / comparisons
    return standard_error(gains, resolution) * float(stats.t.ppf(1 - level / 2, len(gains) - 1))


def holm_correction(p_values: Sequence[float]) -> list[float]:
    """The p values of several tests, each corrected for the others (Holm 1979).

    Example:
        >>> holm_correction([0.03, 0.01])
        [0.03, 0.02]
    """
    corrected, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        corrected[index] = largest
    return corrected


def paired_p_value(gains: Sequence[float], resolution: float = 0.0) -> float:
    """The p value of a paired t test, two-sided; 1 for a single seed or no gain at all.

    Equal gains have the standard error of rounding: a spread of 0 would make any gain certain.
    """
    if len(gains) < 2 or not any(gains):
        return 1.0
    error = standard_error(gains, resolution)
    return float(2 * stats.t.sf(abs(mean(gains)) / error, len(gains) - 1)) if error > 0 else 1.0
