"""`tunelab export`: the best model of a run as a folder for transformers or PEFT."""

import argparse
from pathlib import Path

from tunelab.cli.base_option import add_base_option
from tunelab.language.translation import message, translate

EPILOG = message("""
  merged   a folder that plain transformers loads and serves, any adapter folded into the weights
  adapter  what PEFT loads beside the base model; for runs with adapter=lora and its relatives
Both have the tokenizer, with the chat template that the model was trained with.  The export is loaded in a process of
its own and must give what the trained model gives.
""")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `tunelab export`."""
    parser.epilog = translate(EPILOG)
    parser.add_argument("run", metavar="RUN", help=translate("folder of a run"))
    parser.add_argument(
        "--format", choices=("merged", "adapter"), default="merged", help=translate("merged, unless given")
    )
    parser.add_argument(
        "--output", metavar="DIR", help=translate("where to; RUN/export or RUN/export-adapter unless given")
    )
    parser.add_argument("--no-check", action="store_true", help=translate("do not load the export to compare it"))
    add_base_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the export, load it in a process of its own, compare."""
    from tunelab.errors import ConfigError
    from tunelab.export.run_export import check_export, export_run, probe_trained_model
    from tunelab.runs import console  # torch, which --help does without
    from tunelab.runs.base_weights import allow_changed_base
    from tunelab.training.lifecycle import base_model_location
    from tunelab.training.load_run import load_run

    console.silence_libraries()
    allow_changed_base(arguments.allow_changed_base)
    trained = load_run(arguments.run)
    if trained.source != trained.folder.best:
        raise ConfigError(
            translate(
                "{run} cannot be exported again: {note}; that export is all there is",
                run=arguments.run,
                note=trained.note,
            )
        )
    name = "export" if arguments.format == "merged" else "export-adapter"
    target = Path(arguments.output) if arguments.output else trained.folder.root / name
    refuse_unrelated_target(target, trained.folder.root, base_model_location(trained.settings))
    probe = probe_trained_model(trained)
    probe.request["scale"] = export_run(trained, target, arguments.format)
    if not arguments.no_check:
        difference = check_export(target, probe)
        console.say(
            translate("loaded in a clean process: outputs differ by {difference:.1e} at most", difference=difference)
        )
    console.show_paths({arguments.format: target})
    return 0


def refuse_unrelated_target(target: Path, run: Path, base: str) -> None:
    """Refuse to replace a folder that is no export of ours, a part of another run, or the base model.

    Args:
        target: Where the export goes.
        run: The folder of the run.
        base: The base model that it was trained from, which its checkpoints need.

    Raises:
        ConfigError: Saying what stands there.
    """
    from tunelab.errors import ConfigError
    from tunelab.export.transformers_export import replacement_fault

    place, bases = target.resolve(), Path(base).resolve()
    own = place.parent == run.resolve() and place.name in ("export", "export-adapter")
    if Path(base).exists() and (place == bases or place in bases.parents or bases in place.parents):
        fault = translate("the base model of this run lies there, and its checkpoints need it")
    elif (place.parent / "run.json").is_file() and place.parent != run.resolve():
        fault = translate("it belongs to another run")
    elif own and target.is_dir() and not target.is_symlink():
        return  # of before exports were marked, too
    else:
        fault = replacement_fault(target) or ""
    if fault:
        raise ConfigError(
            translate(
                "--output={target}: {fault}; an export would replace all of it, so give a new folder",
                target=target,
                fault=fault,
            )
        )
