"""Run the best configurations of a study, and its default, again with fresh seeds."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelab.errors import ConfigError, TuneLabError
from tunelab.search.folder import StudyFolder
from tunelab.search.jobs import Job, LocalExecutor
from tunelab.search.outcome import Outcome, read_outcome

FIRST_SEED = 1000  # far from the seeds that searches use, so that no run of the search is repeated
DEFAULT = "default"


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


def reruns(study: StudyFolder, top: int, seeds: int) -> tuple[list[Rerun], dict[str, Any]]:
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
    configurations = {DEFAULT: list[str]()}
    for line in whole:
        if line["origin"] != DEFAULT and len(configurations) <= top:
            configurations[f"trial {line['number']}"] = line["overrides"]
    found = []
    for number in range(seeds):
        for label, chosen in configurations.items():
            seed = FIRST_SEED + number
            folder = study.root / "confirm" / label.replace(" ", "_") / str(seed)
            found.append(Rerun(label, seed, tuple([*request["fixed"], *chosen]), folder))
    return found, request


def carry_out(
    wanted: Sequence[Rerun],
    request: Mapping[str, Any],
    command: Sequence[str],
    slots: Sequence[Mapping[str, str]],
    tell: Callable[[str], None],
) -> dict[str, dict[int, Outcome]]:
    """Run what has not been run yet; outcomes by label and seed.

    Raises:
        TuneLabError: If a run fails: half a comparison would mislead.
    """
    name = "monitor" if request.get("monitored", True) else request["objectives"][0]
    waiting, running = list(wanted), dict[int, tuple[Rerun, Job]]()
    found: dict[str, dict[int, Outcome]] = {}
    try:
        while waiting or running:
            for slot, (rerun, job) in list(running.items()):
                status = job.poll()
                if status is not None:
                    del running[slot]
                    keep(found, rerun, read_outcome(rerun.folder, status, [name]), tell)
            for slot in range(len(slots)):
                while waiting and slot not in running:
                    rerun = waiting.pop(0)
                    known = read_outcome(rerun.folder, 0, [name])
                    if known.state == "complete":
                        found.setdefault(rerun.label, {})[rerun.seed] = known
                        continue
                    running[slot] = rerun, start(rerun, command, slots[slot])
            time.sleep(0.05)
    finally:
        for _, job in running.values():
            job.stop()
    return found


def start(rerun: Rerun, command: Sequence[str], environment: Mapping[str, str]) -> Job:
    """Start a run, or go on with one that was cut off."""
    own = ["test=false", "save=false", f"hydra.run.dir={rerun.folder}"]
    if (rerun.folder / "run.json").is_file():
        return LocalExecutor().start([*command, f"resume={rerun.folder}", own[-1]], rerun.folder, environment)
    kept = [override for override in rerun.overrides if not override.startswith("seed=")]
    return LocalExecutor().start([*command, *kept, f"seed={rerun.seed}", *own], rerun.folder, environment)


def keep(found: dict[str, dict[int, Outcome]], rerun: Rerun, ended: Outcome, tell: Callable[[str], None]) -> None:
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


def training_script() -> list[str]:
    """What starts a training: train.py beside the configuration."""
    return [sys.executable, str(Path(__file__).parents[3] / "train.py")]
