"""`tunelab inspect`: what is about to be trained, before anything is trained."""

import argparse
from pathlib import Path

from tunelab.cli.compose_config import compose_settings
from tunelab.errors import ConfigError
from tunelab.runs import console

EPILOG = """examples:
  tunelab inspect                                             the built-in model and data
  tunelab inspect adapter=lora lr=1e-3 scheduler.warmup=0.1
  tunelab inspect model=scratch model.depth=24 model.initial_std=0.02 --output look.html

A few passes and steps are tried and thrown away; nothing is trained and no run folder is made.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what to look at and where to write it."""
    parser.epilog = EPILOG
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for train.py")
    parser.add_argument("--output", type=Path, help="file to write the page to (outputs/inspect/NAME.html)")


def run(arguments: argparse.Namespace) -> int:
    """Prepare the run as it would be prepared, look at it, tell, write the page."""
    settings = compose_settings(arguments.overrides)
    from tunelab.runs.console import silence_libraries

    silence_libraries()
    from tunelab.report.inspection_page import (
        architecture_lines,
        health_lines,
        inspection_page,
        memory_fit_lines,
        memory_lines,
        memory_size_text,
        rate_text,
        sparkline,
        workload_lines,
    )
    from tunelab.runs.atomic_files import write_text
    from tunelab.training.components import build_components  # torch and transformers, which --help does without
    from tunelab.training.run_inspection import inspect_run

    found = inspect_run(build_components(settings))
    console.show_model(architecture_lines(found))
    console.show_lines("work", align_columns(workload_lines(found)))
    console.show_lines("learning rate", [sparkline(found.curve.rates), rate_text(found)])
    sizes = {what: f"{memory_size_text(size):>12}  {why}" for what, size, why in memory_lines(found)}
    console.show_lines("memory", [*align_columns(sizes), *memory_fit_lines(found)])
    pictures = {"signal": found.signals.forward, "gradient": found.signals.backward}
    drawn = align_columns({name: f"{sparkline(values, log=True)}  (log)" for name, values in pictures.items()})
    console.show_lines(f"signals, bottom to top: {found.verdict.word}", [*drawn, *health_lines(found)])
    path = arguments.output or Path("outputs", "inspect", f"{settings.name}.html")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, inspection_page(f"{settings.data['task']} with {settings.model['path']}", found))
    except OSError as fault:
        raise ConfigError(f"--output {path} cannot be written: {fault.strerror or fault}") from fault
    console.show_paths({"page": path})
    return 0


def align_columns(lines: dict[str, str]) -> list[str]:
    """Names and what is said of them, in two columns."""
    widest = max(map(len, lines), default=0)
    return [f"{name:<{widest}}  {words}" for name, words in lines.items()]
