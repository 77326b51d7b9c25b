"""`tunelab confirm`: the best trials of a search against the default, trained again with fresh seeds."""

import argparse
import os
from contextlib import closing
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from tunelab.language.translation import message, translate

if TYPE_CHECKING:
    from tunelab.search.confirmation import Comparison

EPILOG = message("""
The best configurations and the default are trained with the same fresh seeds, so each seed is one fair pair.  A
configuration is worth adopting where its gain over the default is proven at 5 % over all of them together; where it is
not, the default is the safer choice.  Finished runs are kept: the same command goes on.
""")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `tunelab confirm`."""
    parser.epilog = translate(EPILOG)
    parser.add_argument("study", metavar="STUDY", help=translate("folder of a search"))
    parser.add_argument("--top", type=int, default=3, metavar="N", help=translate("best configurations to confirm (3)"))
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help=translate("fresh seeds for each (5)"))
    parser.add_argument(
        "--script",
        type=Path,
        metavar="FILE",
        help=translate("the script that starts the trainings, where one of your own started those of the search"),
    )
    at_a_time = ("--parallel-trials", "--slots")  # the second is its old name
    parser.add_argument(*at_a_time, type=int, default=1, metavar="N", help=translate("trainings at a time (1)"))


def run(arguments: argparse.Namespace) -> int:
    """Train again and compare; print a table and a verdict for each configuration."""
    from tunelab.config.stored_files import STUDY_FILE_ADVICE, shape_faults_explained
    from tunelab.errors import ConfigError
    from tunelab.runs import console
    from tunelab.runs.atomic_files import write_json
    from tunelab.runs.entry_script import check_script, recorded_sha256, script_record, train_command
    from tunelab.runs.study_folder import StudyFolder
    from tunelab.search.confirmation import (
        DEFAULT_LABEL,
        MIN_SEEDS,
        compare_with_default,
        mean_interval,
        plan_reruns,
        run_reruns,
        score_resolution,
    )
    from tunelab.search.executors import local_executor
    from tunelab.search.trial_process import slot_environments

    least = {"top": 1, "seeds": 2, "parallel_trials": 1}
    faults = [
        translate(
            "--{option}={value} must be at least {least}",
            option=name.replace("_", "-"),
            value=value,
            least=least[name],
        )
        for name, value in vars(arguments).items()
        if name in least and value < least[name]
    ]
    if faults:
        raise ConfigError.listing(faults)
    study = StudyFolder(Path(arguments.study).absolute())
    with shape_faults_explained(
        translate("{root}: its search.json or trials.jsonl", root=study.root), STUDY_FILE_ADVICE
    ):
        reruns, request = plan_reruns(study, arguments.top, arguments.seeds)
    if not reruns:
        console.say(
            translate(
                "the best configuration of this study is the default itself, so there is nothing to confirm; search a "
                "wider space, or another one (the report says where to look), or keep the default"
            )
        )
        return 0
    script = arguments.script.absolute() if arguments.script is not None else None
    check_script(script, request.get("script"))
    if recorded_sha256(script_record(script)) != recorded_sha256(request.get("script")):
        console.say(
            translate(
                "{file} is not the script that started the trials of this search: where it changes what is trained, "
                "the scores do not compare with theirs",
                file=script,
            )
        )
    slots = slot_environments(arguments.parallel_trials, 1, os.environ)
    fork = "search.fork=false" not in request.get("arguments", [])
    with closing(local_executor(console.say, script, fork=fork)) as executor:
        results = run_reruns(reruns, request, train_command(script), slots, console.say, executor)
    name, mode = request["objectives"][0], request["modes"][0]
    seeds = sorted(results[DEFAULT_LABEL])
    order = list(dict.fromkeys(rerun.label for rerun in reruns))  # the default, then the best first
    scores = {label: [results[label][seed].values[0] for seed in seeds] for label in order}
    resolution = score_resolution(score for values in scores.values() for score in values)
    intervals = {label: mean_interval(values, resolution) for label, values in scores.items()}
    candidates = [label for label in scores if label != DEFAULT_LABEL]
    verdicts = dict(
        zip(candidates, compare_with_default([scores[c] for c in candidates], scores[DEFAULT_LABEL], mode), strict=True)
    )
    table = {label: {"mean": line.mean, "low": line.low, "high": line.high} for label, line in intervals.items()}
    for label, verdict in verdicts.items():
        table[label] |= {
            "gain": verdict.gain,
            translate("gain low"): verdict.low,
            translate("gain high"): verdict.high,
            "p": verdict.p,
        }
    title = translate("{score} over {count} fresh [seed|seeds], with 95 % intervals", score=name, count=len(seeds))
    console.show_groups(title, table)
    for label, verdict in verdicts.items():
        console.say(f"{label}: {describe_comparison(verdict)}")
    if not verdicts:
        console.say(translate("the default was the only finished trial; there is nothing to compare it with"))
    if verdicts and not any(verdict.adopt for verdict in verdicts.values()):
        more = max(2 * len(seeds), MIN_SEEDS)
        text = translate("keep the default, or add seeds: --seeds {count} keeps the runs that are done", count=more)
        console.say(text)
    out = study.confirmation
    facts = {label: asdict(verdict) | {"scores": scores[label]} for label, verdict in verdicts.items()}
    write_json(
        out, {"objective": name, "mode": mode, "seeds": seeds, "default": scores[DEFAULT_LABEL], "verdicts": facts}
    )
    console.show_paths({translate("figures"): out})
    return 0


def describe_comparison(verdict: "Comparison") -> str:
    """The verdict on one configuration as a sentence: adopt it or not, and why."""
    gain = translate(
        "gain over the default {gain:.4g} ({low:.4g} to {high:.4g})",
        gain=verdict.gain,
        low=verdict.low,
        high=verdict.high,
    )
    if verdict.adopt:
        return translate("adopt; {gain}", gain=gain)
    if verdict.gain <= 0:
        return translate("not proven; it is no better than the default: {gain}", gain=gain)
    if verdict.provable == inf:
        return translate(
            "not proven; {gain}: two seeds are too few to tell, their gains agree by chance too often", gain=gain
        )
    return translate(
        "not proven; {gain}, and p over all comparisons is {p:.2g}, where 0.05 would prove it; with these seeds and "
        "their spread a gain of {provable:.2g} would be",
        gain=gain,
        p=verdict.corrected,
        provable=verdict.provable,
    )
