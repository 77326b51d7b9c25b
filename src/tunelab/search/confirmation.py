"""Confirm a study: its best configurations and the default trained again with new seeds, compared by paired t tests."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy import stats

from tunelab.errors import ConfigError, TuneLabError
from tunelab.search.study_folder import StudyFolder
from tunelab.search.trial_outcome import TrialOutcome, read_outcome
from tunelab.search.trial_process import Job, LocalExecutor

FIRST_SEED = 1000  # far from the seeds that searches use, so that no run of the search is repeated
DEFAULT_LABEL = "default"


@dataclass(frozen=True)
class Rerun:
    """One training to do.

    Attributes:
        label: `default`, or `trial N`.
        seed: Of the training.
        overrides: All of its settings.
        folder: Its run folder.
    """

    label: str
    seed: int
    overrides: tuple[str, ...]
    folder: Path


def plan_reruns(study: StudyFolder, top: int, seeds: int) -> tuple[list[Rerun], dict[str, Any]]:
    """What must be run, the default first, and how the study was asked for.

    Raises:
        ConfigError: If the folder holds no study with a result.
    """
    try:
        request = study.read_request()
        lines = [json.loads(line) for line in study.trials.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as fault:
        raise ConfigError(f"{study.root} is no study ({fault}); give the study folder that a search printed") from fault
    if len(request["objectives"]) != 1:
        raise ConfigError(f"{study.root} has {len(request['objectives'])} objectives; only one can be confirmed")
    if request.get("stages"):
        raise ConfigError(
            f"{study.root} found a schedule that changes within a run, so it has no configuration to confirm"
        )
    whole = [line for line in lines if line["state"] == "complete" and max(line["excess"] or [0.0]) <= 0]
    if not whole:
        raise ConfigError(f"{study.root} has no finished trial; run the search first")
    whole.sort(key=lambda line: line["value"] if request["modes"][0] == "min" else -line["value"])
    configurations = {DEFAULT_LABEL: list[str]()}
    for line in whole:
        if line["origin"] != DEFAULT_LABEL and len(configurations) <= top:
            configurations[f"trial {line['number']}"] = line["overrides"]
    found = []
    for number in range(seeds):
        for label, chosen in configurations.items():
            seed = FIRST_SEED + number
            folder = study.root / "confirm" / label.replace(" ", "_") / str(seed)
            found.append(Rerun(label, seed, tuple([*request["fixed"], *chosen]), folder))
    return found, request


def run_reruns(
    wanted: Sequence[Rerun],
    request: Mapping[str, Any],
    command: Sequence[str],
    slots: Sequence[Mapping[str, str]],
    tell: Callable[[str], None],
) -> dict[str, dict[int, TrialOutcome]]:
    """Run what has not been run yet; outcomes by label and seed.

    Raises:
        TuneLabError: If a run fails: half a comparison would mislead.
    """
    name = "monitor" if request.get("monitored", True) else request["objectives"][0]
    waiting, running = list(wanted), dict[int, tuple[Rerun, Job]]()
    found: dict[str, dict[int, TrialOutcome]] = {}
    try:
        while waiting or running:
            for slot, (rerun, job) in list(running.items()):
                status = job.poll()
                if status is not None:
                    del running[slot]
                    record_rerun(found, rerun, read_outcome(rerun.folder, status, [name]), tell)
            for slot in range(len(slots)):
                while waiting and slot not in running:
                    rerun = waiting.pop(0)
                    known = read_outcome(rerun.folder, 0, [name])
                    if known.state == "complete":
                        found.setdefault(rerun.label, {})[rerun.seed] = known
                        continue
                    running[slot] = rerun, start_rerun(rerun, command, slots[slot])
            time.sleep(0.05)
    finally:
        for _, job in running.values():
            job.stop()
    return found


def start_rerun(rerun: Rerun, command: Sequence[str], environment: Mapping[str, str]) -> Job:
    """Start a run, or go on with one that was cut off."""
    own = ["test=false", "save=false", f"hydra.run.dir={rerun.folder}"]
    if (rerun.folder / "run.json").is_file():
        return LocalExecutor().start([*command, f"resume={rerun.folder}", own[-1]], rerun.folder, environment)
    kept = [override for override in rerun.overrides if not override.startswith("seed=")]
    return LocalExecutor().start([*command, *kept, f"seed={rerun.seed}", *own], rerun.folder, environment)


def record_rerun(
    found: dict[str, dict[int, TrialOutcome]], rerun: Rerun, ended: TrialOutcome, tell: Callable[[str], None]
) -> None:
    """Note how a run ended.

    Raises:
        TuneLabError: If it failed.
    """
    if ended.state != "complete":
        raise TuneLabError(
            f"{rerun.label} with seed {rerun.seed} failed ({ended.kind}: {ended.reason}); without it the comparison "
            f"would be lopsided. Its output is in {rerun.folder}/trial.log; the same command goes on"
        )
    found.setdefault(rerun.label, {})[rerun.seed] = ended
    tell(f"{rerun.label}, seed {rerun.seed}: {ended.values[0]:.5g}")


def training_command() -> list[str]:
    """What starts a training: train.py beside the configuration."""
    return [sys.executable, str(Path(__file__).parents[3] / "train.py")]


SIGNIFICANCE_LEVEL = 0.05  # share of false alarms that is put up with, over all configurations together


@dataclass(frozen=True)
class MeanInterval:
    """Scores of one configuration over seeds.

    Attributes:
        mean: Of the scores.
        low, high: Its 95 % confidence interval, by Student's t.
        seeds: How many there were.
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
        p: Chance of a gain this far from 0 if there is none (paired t test, two sides).
        corrected: The same after Holm's correction for several configurations.
        adopt: Whether the gain is proven: positive, and `corrected` at most `LEVEL`.
    """

    gain: float
    low: float
    high: float
    p: float
    corrected: float
    adopt: bool


def mean_interval(scores: Sequence[float]) -> MeanInterval:
    """Mean and confidence interval; the interval of a single score has no bounds."""
    if len(scores) < 2:
        return MeanInterval(scores[0], float("-inf"), float("inf"), len(scores))
    half = float(stats.t.ppf(0.975, len(scores) - 1)) * stdev(scores) / sqrt(len(scores))
    return MeanInterval(mean(scores), mean(scores) - half, mean(scores) + half, len(scores))


def compare_with_default(
    candidates: Sequence[Sequence[float]], default: Sequence[float], mode: str
) -> list[Comparison]:
    """Each candidate against the default.

    Args:
        candidates: Scores of each configuration, seed by seed.
        default: Scores of the default, for the same seeds in the same order.
        mode: `min` or `max`: which way the score is better.

    Returns:
        One comparison for each candidate; `adopt` follows Holm (1979) over all of them.
    """
    sign = -1.0 if mode == "min" else 1.0
    gains = [[sign * (one - other) for one, other in zip(scores, default, strict=True)] for scores in candidates]
    found = [mean_interval(gain) for gain in gains]
    chances = [paired_p_value(gain) for gain in gains]
    corrected = holm_correction(chances)
    return [
        Comparison(line.mean, line.low, line.high, p, over_all, over_all <= SIGNIFICANCE_LEVEL and line.mean > 0)
        for line, p, over_all in zip(found, chances, corrected, strict=True)
    ]


def holm_correction(chances: Sequence[float]) -> list[float]:
    """The p values of several tests, each corrected for the others (Holm 1979).

    Example:
        >>> holm_correction([0.03, 0.01])
        [0.03, 0.02]
    """
    found, least = [1.0] * len(chances), 0.0
    for rank, place in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        least = max(least, min(1.0, chances[place] * (len(chances) - rank)))
        found[place] = least
    return found


def paired_p_value(gains: Sequence[float]) -> float:
    """The p value of a paired t test; 1 where there is nothing to test, 0 where every seed gains the same."""
    if len(gains) < 2:
        return 1.0
    if stdev(gains) == 0:
        return 1.0 if gains[0] == 0 else 0.0
    return float(stats.ttest_1samp(gains, 0.0).pvalue)
