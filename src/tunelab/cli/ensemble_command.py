"""`tunelab ensemble`: several trained models combined, and the gain over the best single one."""

import argparse
import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelab.cli.base_option import add_base_option
from tunelab.language.translation import message, translate

if TYPE_CHECKING:
    from tunelab.data.data_sources import DataSplits
    from tunelab.ensemble.ensemble_members import MemberSource
    from tunelab.ensemble.ensemble_scores import EnsembleResult
    from tunelab.training.load_run import TrainedRun

METHODS = ("soft", "hard", "weighted", "stack", "soup", "greedy_soup", "snapshot")

EPILOG = message("""
  soft         mean of the probabilities, of the numbers, or of the next-token distributions
  hard         one vote a model; of numbers the median; of answers the one that most agree on
  weighted     mean with the weights that fit validation best
  stack        a small model on top, learned on validation (labels and numbers)
  soup         the mean of the weights: one model, with an export
  greedy_soup  the same, without the models that lower the validation score
  snapshot     mean of one run's predictions at the end of each cycle (scheduler=cosine_restarts callbacks.snapshots=3)
Everything is fitted on validation; the test split is scored once, and the gain over the best single model (best on
validation) comes with a 95 % interval over its rows.
""")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `tunelab ensemble`."""
    parser.epilog = translate(EPILOG)
    parser.add_argument("runs", nargs="*", metavar="RUN", help=translate("folders of runs"))
    parser.add_argument("--method", choices=METHODS, default="soft", help=translate("soft, unless given"))
    parser.add_argument("--from", dest="study", metavar="STUDY", help=translate("take the runs from a search"))
    parser.add_argument("--top", type=int, default=5, metavar="N", help=translate("members at most, with --from (5)"))
    parser.add_argument(
        "--output", metavar="DIR", help=translate("run folder of the ensemble; a new one under outputs/ensemble")
    )
    parser.add_argument(
        "--samples", type=int, default=0, metavar="N", help=translate("with hard: N drawn answers of each model")
    )
    parser.add_argument("--temperature", type=float, default=0.7, metavar="T", help=translate("of these draws (0.7)"))
    parser.add_argument("--seed", type=int, default=0, metavar="N", help=translate("of these draws (0)"))
    parser.add_argument(
        "--pattern", metavar="REGEX", help=translate("what of an answer is voted on: the last match of this")
    )
    add_base_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Combine the models, evaluate the ensemble, write its folder."""
    import time  # torch, which --help does without

    from tunelab.ensemble.ensemble_folder import ENSEMBLE_FILE, gain_sentence, write_ensemble_folder
    from tunelab.ensemble.ensemble_members import best_checkpoints, best_study_runs, snapshot_checkpoints
    from tunelab.errors import ConfigError
    from tunelab.runs import console
    from tunelab.runs.base_weights import allow_changed_base
    from tunelab.runs.run_dir import RunDirectory

    console.silence_libraries()
    allow_changed_base(arguments.allow_changed_base)
    start, method = time.monotonic(), str(arguments.method)
    if faults := argument_faults(arguments):
        raise ConfigError.listing(faults)
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
    root = Path(arguments.output) if arguments.output else Path("outputs") / "ensemble" / stamp
    if RunDirectory(root).exists():
        raise ConfigError(
            translate("--output={root} holds a run already, which would be overwritten; give a new folder", root=root)
        )
    selects = arguments.study is not None and method not in ("soup", "greedy_soup", "hard", "snapshot")
    runs = list(arguments.runs)
    if arguments.study is not None:
        runs = best_study_runs(Path(arguments.study), None if selects else arguments.top)
    members = snapshot_checkpoints(runs) if method == "snapshot" else best_checkpoints(runs)
    if method != "hard" and len(members) < 2:
        raise ConfigError(
            translate(
                "{count} model leaves nothing to combine; name at least two runs, or --from STUDY", count=len(members)
            )
        )
    result, model, sources = build_ensemble(members, method, arguments.top if selects else None, arguments)
    folder = write_ensemble_folder(root, method, result, model, sources, members, start)
    print_result(result)
    paths: dict[str, Any] = {
        translate("run folder"): folder.root,
        translate("members and gains"): folder.root / ENSEMBLE_FILE,
    }
    console.show_paths(paths | ({"export": folder.export} if folder.export.is_dir() else {}))
    console.say(gain_sentence(result))
    return 0


def build_ensemble(
    members: "list[MemberSource]", method: str, select: int | None, arguments: argparse.Namespace
) -> "tuple[EnsembleResult, TrainedRun, DataSplits]":
    """Scores, model and data of the ensemble that a method makes of the members.

    Raises:
        ConfigError: If the method cannot combine such models.
    """
    from tunelab.ensemble import label_ensemble, text_ensemble
    from tunelab.ensemble.model_soup import make_soup
    from tunelab.errors import ConfigError
    from tunelab.training.load_run import read_run_config

    if method in ("soup", "greedy_soup"):
        return make_soup(members, greedy=method == "greedy_soup")
    task = read_run_config(members[0].folder).data.task
    if task == "preference":
        raise ConfigError(
            translate("runs with data=preference can be combined by their weights only; take --method soup")
        )
    combination = "soft" if method == "snapshot" else method
    if task != "instruction":
        if arguments.samples or arguments.pattern:
            raise ConfigError(
                translate("--samples and --pattern are for models that answer; these give labels or numbers")
            )
        if len(members) < 2:
            raise ConfigError(translate("1 model leaves nothing to combine; name at least two runs, or --from STUDY"))
        return label_ensemble.build_label_ensemble(members, combination, select)
    if combination == "stack":
        raise ConfigError(
            translate(
                "a stack would need weights for every token of the vocabulary; for language models "
                "take --method weighted"
            )
        )
    if combination == "hard":
        draws = text_ensemble.VoteSampling(arguments.samples, arguments.temperature, arguments.seed, arguments.pattern)
        return text_ensemble.build_vote_ensemble(members, draws)
    return text_ensemble.build_mixture_ensemble(members, combination, select)


def argument_faults(arguments: argparse.Namespace) -> list[str]:
    """Every fault of the options, each as a sentence."""
    faults = []
    if bool(arguments.runs) == bool(arguments.study):
        faults.append(
            translate("name runs, or a search with --from STUDY, not both")
            if arguments.runs
            else translate("no run is named")
        )
    if arguments.top < 2:
        faults.append(translate("--top={top} must be at least 2", top=arguments.top))
    if arguments.samples < 0:
        faults.append(translate("--samples={samples} must be at least 0", samples=arguments.samples))
    if arguments.samples and arguments.temperature <= 0:
        faults.append(
            translate(
                "--temperature={temperature} must be above 0, or all draws are the same",
                temperature=arguments.temperature,
            )
        )
    if (arguments.samples or arguments.pattern) and arguments.method != "hard":
        faults.append(translate("--samples and --pattern belong to a vote: --method hard"))
    try:
        re.compile(arguments.pattern or "")
    except re.error as fault:
        faults.append(
            translate("--pattern={pattern} is no regular expression: {fault}", pattern=arguments.pattern, fault=fault)
        )
    return faults


def print_result(result: "EnsembleResult") -> None:
    """Print the members with their scores, and the gains on the test split."""
    from tunelab.runs import console

    weights = result.weights or [float("nan")] * len(result.names)
    singles = result.facts["validation_of_singles"]
    rows = {
        name: {"weight": weight, "validation": singles[name]}
        for name, weight in zip(result.names, weights, strict=True)
    }
    console.show_groups(translate("members, with val/{primary}", primary=result.facts["primary"]), rows)
    table = {
        name: {translate("best single"): g.single, "ensemble": g.ensemble, "gain": g.gain, "low": g.low, "high": g.high}
        for name, g in result.gains.items()
    }
    console.show_groups("test", table)
    if "calibration" in result.facts:
        console.show_groups(translate("calibration on test"), result.facts["calibration"])
