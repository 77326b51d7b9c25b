"""`tunelab reproduce`: re-run from run.json, and what differs."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from tunelab.language.translation import message, translate

if TYPE_CHECKING:
    from tunelab.runs.reproduction_check import ReproductionResult

EPILOG = message("""
RUN is a run folder, or its run.json: nothing else of it is read.  Exit status 0 and "identical" when weights,
predictions and all scores are equal to the last bit; 3 and what differs otherwise.  On a CPU with the same code,
versions and data the result is identical, for a resumed run too.
""")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `tunelab reproduce`."""
    parser.epilog = translate(EPILOG)
    parser.add_argument("run", metavar="RUN", help=translate("folder of a run, or its run.json"))
    parser.add_argument(
        "--output", metavar="DIR", help=translate("folder of the repetition; a new one under outputs/reproduced")
    )
    parser.add_argument(
        "--seeds", type=int, default=0, metavar="N", help=translate("train N more seeds to know the variation (0)")
    )
    parser.add_argument(
        "--script",
        type=Path,
        metavar="FILE",
        help=translate("the script that starts the training, where one of your own started the run"),
    )
    parser.add_argument(
        "--check", action="store_true", help=translate("only print what has changed since then; train nothing")
    )


def run(arguments: argparse.Namespace) -> int:
    """Compare the circumstances, train again, compare the results."""
    from tunelab.config.resource_paths import expand_home
    from tunelab.config.stored_files import shape_faults_explained
    from tunelab.errors import ConfigError
    from tunelab.runs import console  # torch, which --help does without
    from tunelab.runs.entry_script import check_script
    from tunelab.runs.reproduction import (
        check_reproducible,
        current_circumstances,
        read_run_manifest,
        reproduce_run,
        training_stages,
    )
    from tunelab.runs.reproduction_check import circumstance_changes, compare_runs, runs_with_other_seeds

    if arguments.seeds < 0:
        raise ConfigError(translate("--seeds={seeds} must be at least 0", seeds=arguments.seeds))
    source = expand_home(arguments.run)
    manifest = read_run_manifest(source)
    script = arguments.script.absolute() if arguments.script is not None else None
    if script is not None or not arguments.check:
        check_script(script, manifest.get("script"))
    with shape_faults_explained(source):
        check_reproducible(manifest, arguments.run)
        changed = circumstance_changes(manifest, current_circumstances(manifest, script))
        training_stages(manifest)
    unchanged = translate("no change in code, data, versions or hardware")
    console.show_lines(translate("changes since the run"), changed or [unchanged])
    if arguments.check:
        return 3 if changed else 0
    folder = Path(arguments.output) if arguments.output else unused_folder(source)
    if len(training_stages(manifest)) > 1:
        console.say(
            translate(
                "the run was resumed with other settings: {count} [training|trainings] one after another",
                count=len(training_stages(manifest)),
            )
        )
    now = reproduce_run(manifest, folder, script=script)
    changed = circumstance_changes(manifest, now)
    others = runs_with_other_seeds(manifest, source.absolute().parent) if source.is_dir() else []
    for number in range(arguments.seeds):
        seed = 1000 + number
        others.append(reproduce_run(manifest, folder.with_name(f"{folder.name}_seed_{seed}"), seed=seed, script=script))
    verdict = compare_runs(manifest, now, others)
    named_script = "" if script is None else f" --script {shlex.quote(str(arguments.script))}"
    write_comparison(folder, source, verdict, changed)
    console.show_paths({translate("repetition"): folder, translate("comparison"): folder / "reproduction.json"})
    print_verdict(verdict, changed, shlex.quote(arguments.run) + named_script)
    return 0 if verdict.identical else 3


def write_comparison(folder: Path, source: Path, verdict: "ReproductionResult", changed: list[str]) -> None:
    """Write `reproduction.json` into the folder of the repetition."""
    from dataclasses import asdict

    from tunelab.runs.atomic_files import write_json

    scores = [
        {
            "name": score.name,
            "then": score.original,
            "now": score.reproduced,
            "spread": asdict(score.seed_interval) if score.seed_interval is not None else None,
            "inside": score.within_seed_interval,
        }
        for score in verdict.scores
    ]
    facts = {"run": str(source.absolute()), "identical": verdict.identical, "differing": verdict.differences}
    write_json(folder / "reproduction.json", {**facts, "changed": changed, "scores": scores})


def print_verdict(verdict: "ReproductionResult", changed: list[str], name: str) -> None:
    """Print whether the results are identical, else what differs and by how much."""
    from tunelab.runs import console
    from tunelab.runs.reproduction_check import difference_lines

    if verdict.identical:
        console.say(translate("identical"))
        return
    console.show_lines(translate("not identical"), verdict.differences)
    nothing = translate("none that run.json records; sums on a GPU have no fixed order")
    console.show_lines(translate("changes since the run"), changed or [nothing])
    console.show_lines(translate("scores"), difference_lines(verdict) or [translate("every score is the same")])
    if any(line.within_seed_interval is None for line in verdict.scores if not line.same):
        console.say(
            translate(
                "seed variance unknown: too few seeds of this run; estimate it with tunelab reproduce {run} --seeds 4",
                run=name,
            )
        )


def unused_folder(source: Path) -> Path:
    """A folder below outputs/reproduced that does not exist yet, named after the run."""
    run = source.absolute() if source.is_dir() else source.absolute().parent
    base = Path("outputs") / "reproduced" / f"{run.parent.name}_{run.name}"
    folder, number = base, 2
    while folder.exists():
        folder, number = base.with_name(f"{base.name}_{number}"), number + 1
    return folder
