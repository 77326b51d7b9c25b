"""`tunelab export`: the best model of a run as a folder for transformers or PEFT."""

import argparse
from pathlib import Path

EPILOG = """
  merged   a folder that plain transformers loads and serves, any adapter folded into the weights
  adapter  what PEFT loads beside the base model; for runs with adapter=lora and its relatives
Both have the tokenizer, with the chat template that the model was trained with.  The export is loaded in a process of
its own and must give what the trained model gives.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `tunelab export`."""
    parser.epilog = EPILOG
    parser.add_argument("run", metavar="RUN", help="folder of a run")
    parser.add_argument("--format", choices=("merged", "adapter"), default="merged", help="merged, unless given")
    parser.add_argument("--output", metavar="DIR", help="where to; RUN/export or RUN/export-adapter unless given")
    parser.add_argument("--no-check", action="store_true", help="do not load the export to compare it")


def run(arguments: argparse.Namespace) -> int:
    """Write the export, load it in a process of its own, compare."""
    from tunelab.errors import ConfigError
    from tunelab.export.run_export import check_export, export_run, probe_trained_model
    from tunelab.runs import console  # torch, which --help does without
    from tunelab.training.load_run import load_run

    console.silence_libraries()
    trained = load_run(arguments.run)
    if trained.source != trained.folder.best:
        raise ConfigError(f"{arguments.run} cannot be exported again: {trained.note}; that export is all there is")
    name = "export" if arguments.format == "merged" else "export-adapter"
    target = Path(arguments.output) if arguments.output else trained.folder.root / name
    refuse_unrelated_target(target)
    probe = probe_trained_model(trained)
    probe.request["scale"] = export_run(trained, target, arguments.format)
    if not arguments.no_check:
        console.say(f"loaded in a clean process: outputs differ by {check_export(target, probe):.1e} at most")
    console.show_paths({arguments.format: target})
    return 0


def refuse_unrelated_target(target: Path) -> None:
    """Refuse to replace a folder that is no export.

    Raises:
        ConfigError: If the target is a file, or a folder that holds other things.
    """
    from tunelab.errors import ConfigError

    ours = {"config.json", "adapter_config.json"}
    if target.is_dir() and any(target.iterdir()) and not any((target / name).is_file() for name in ours):
        raise ConfigError(f"--output={target} holds other things, which an export would replace; give a new folder")
    if target.exists() and not target.is_dir():
        raise ConfigError(f"--output={target} is a file; give a folder")
