"""`tunelab inspect`: model, work, memory, learning rate and signals of a run before it is trained."""

import argparse
from pathlib import Path

from tunelab.errors import ConfigError
from tunelab.language.translation import localize, message, translate
from tunelab.runs import console
from tunelab.runs.terminal import terminal_width, text_width

EPILOG = message("""examples:
  tunelab inspect                                             the built-in model and data
  tunelab inspect adapter=lora lr=1e-3 scheduler.warmup=0.1
  tunelab inspect model=scratch model.depth=24 model.initial_std=0.02 --output look.html

A few passes and steps are tried and thrown away; nothing is trained and no run folder is made.
""")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `tunelab inspect`."""
    parser.epilog = translate(EPILOG)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=translate("settings, as for train.py"))
    parser.add_argument("--output", type=Path, help=translate("file to write the page to (outputs/inspect/NAME.html)"))


def run(arguments: argparse.Namespace) -> int:
    """Build the run as training would, measure it, print a summary and write the page."""
    from tunelab.cli.compose_config import compose_settings  # Hydra, which TAB does without

    settings = compose_settings(arguments.overrides)

    console.silence_libraries()
    from tunelab.analysis.number_format import format_bytes
    from tunelab.report.inspection_page import (
        architecture_lines,
        health_lines,
        inspection_page,
        memory_fit_lines,
        memory_lines,
        rate_text,
        sparkline,
        strategy_lines,
        workload_lines,
    )
    from tunelab.runs.atomic_files import write_text
    from tunelab.training.components import build_components  # torch and transformers, which --help does without
    from tunelab.training.run_inspection import inspect_run

    inspection = inspect_run(build_components(settings))
    console.show_model(architecture_lines(inspection))
    console.show_lines(translate("work"), align_columns(workload_lines(inspection)))
    columns = min(MAX_SPARKS, (terminal_width() or 80) - BESIDE_SPARKS)
    console.show_lines(
        translate("learning rate"), [sparkline(inspection.learning_rates.rates, columns), rate_text(inspection)]
    )
    sizes = {what: f"{format_bytes(size):>12}  {why}" for what, size, why in memory_lines(inspection)}
    console.show_lines(
        translate("memory"), [*align_columns(sizes), *memory_fit_lines(inspection), *strategy_lines(inspection)]
    )
    signals = {
        translate("signal"): inspection.signals.forward,
        translate("gradient"): inspection.signals.backward,
    }
    plots = align_columns({name: f"{sparkline(values, columns, log=True)}  (log)" for name, values in signals.items()})
    console.show_lines(
        translate("signals, bottom to top: {health}", health=translate(inspection.signal_verdict.health)),
        [*plots, *health_lines(inspection)],
    )
    path = arguments.output or Path("outputs", "inspect", f"{settings.name}.html")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(
            path,
            inspection_page(
                translate("{task} with {path}", task=settings.data.task, path=settings.model.path), inspection
            ),
        )
    except OSError as fault:
        raise ConfigError(
            translate("--output {path} cannot be written: {value}", path=path, value=fault.strerror or fault)
        ) from fault
    console.show_paths({translate("page"): path})
    return 0


MAX_SPARKS, BESIDE_SPARKS = 60, 20  # columns of a line of blocks, and those for its name and its scale
HEALTH = (message("healthy"), message("vanishing"), message("exploding"))  # as the inspection calls them


def align_columns(lines: dict[str, str]) -> list[str]:
    """Names and texts in two columns."""
    named = [(localize(name), words) for name, words in lines.items()]
    widest = max((text_width(name) for name, _ in named), default=0)
    return [f"{name}{' ' * (widest - text_width(name))}  {words}" for name, words in named]
