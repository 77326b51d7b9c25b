"""`tunelab reproduce`: a run again from its manifest alone, and whether the same came out."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunelab.runs.reproduction_check import ReproductionResult

EPILOG = """
RUN is a run folder, or its run.json: nothing else of it is read.  Exit status 0 and "identical" when weights,
predictions and all scores are equal to the last bit; 3 and what differs otherwise.  On a CPU with the same code,
versions and data the result is identical, for a resumed run too.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare arguments."""
    parser.epilog = EPILOG
    parser.add_argument("run", metavar="RUN", help="folder of a run, or its run.json")
    parser.add_argument("--output", metavar="DIR", help="folder of the repetition; a new one under outputs/reproduced")
    parser.add_argument("--seeds", type=int, default=0, metavar="N", help="train N more seeds to know the spread (0)")
    parser.add_argument("--check", action="store_true", help="only say what differs from then; train nothing")


def run(arguments: argparse.Namespace) -> int:
    """Compare, train, compare."""
    from tunelab.errors import ConfigError
    from tunelab.runs import console  # torch and its kin, which --help does without
    from tunelab.runs.reproduction import (
        check_reproducible,
        current_circumstances,
        read_run_manifest,
        reproduce_run,
        training_stages,
    )
    from tunelab.runs.reproduction_check import circumstance_changes, compare_runs, runs_with_other_seeds

    if arguments.seeds < 0:
        raise ConfigError(f"--seeds={arguments.seeds} must be at least 0")
    place = Path(arguments.run).expanduser()
    card = read_run_manifest(place)
    check_reproducible(card, arguments.run)
    changed = circumstance_changes(card, current_circumstances(card))
    console.show_lines("since then", changed or ["nothing that the card knows of has changed"])
    if arguments.check:
        return 3 if changed else 0
    folder = Path(arguments.output) if arguments.output else unused_folder(place)
    if len(training_stages(card)) > 1:
        console.say(
            f"the run was gone on with under other settings: {len(training_stages(card))} trainings one after another"
        )
    now = reproduce_run(card, folder)
    changed = circumstance_changes(card, now)
    others = runs_with_other_seeds(card, place.absolute().parent) if place.is_dir() else []
    for number in range(arguments.seeds):
        seed = 1000 + number
        others.append(reproduce_run(card, folder.with_name(f"{folder.name}_seed_{seed}"), seed=seed))
    verdict = compare_runs(card, now, others)
    write_comparison(folder, place, verdict, changed)
    console.show_paths({"repetition": folder, "comparison": folder / "reproduction.json"})
    print_verdict(verdict, changed, arguments.run)
    return 0 if verdict.identical else 3


def write_comparison(folder: Path, place: Path, verdict: "ReproductionResult", changed: list[str]) -> None:
    """Write the comparison beside the repetition."""
    from dataclasses import asdict

    from tunelab.runs.atomic_files import write_json

    scores: list[dict[str, Any]] = [{**asdict(line), "inside": line.inside} for line in verdict.scores]
    facts = {"run": str(place.absolute()), "identical": verdict.identical, "differing": verdict.differing}
    write_json(folder / "reproduction.json", {**facts, "changed": changed, "scores": scores})


def print_verdict(verdict: "ReproductionResult", changed: list[str], name: str) -> None:
    """Print the verdict."""
    from tunelab.runs import console
    from tunelab.runs.reproduction_check import difference_lines

    if verdict.identical:
        console.say("identical")
        return
    console.show_lines("not identical", verdict.differing)
    console.show_lines("what differs from then", changed or ["nothing that the cards know of; GPUs add in any order"])
    console.show_lines("scores", difference_lines(verdict) or ["every score is the same"])
    if any(line.inside is None for line in verdict.scores if not line.same):
        console.say(f"too few seeds are known to say how far chance moves a score: tunelab reproduce {name} --seeds 4")


def unused_folder(place: Path) -> Path:
    """A folder that is not there yet, named after the run."""
    run = place.absolute() if place.is_dir() else place.absolute().parent
    wanted = Path("outputs") / "reproduced" / f"{run.parent.name}_{run.name}"
    found, number = wanted, 2
    while found.exists():
        found, number = wanted.with_name(f"{wanted.name}_{number}"), number + 1
    return found
