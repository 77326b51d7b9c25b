"""`tunelab preview`: the data as the model will see it, before anything is trained."""

import argparse
from pathlib import Path

from tunelab.errors import ConfigError
from tunelab.language.translation import message, translate
from tunelab.runs import console

EPILOG = message("""examples:
  tunelab preview                                                        the built-in data
  tunelab preview data=instruction data.train=my.jsonl model.path=my_model
  tunelab preview data=preference data.train=pairs.jsonl --rows 10 --split test --output look.html
""")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `tunelab preview`."""
    parser.epilog = translate(EPILOG)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=translate("settings, as for train.py"))
    parser.add_argument(
        "--rows", type=int, default=3, help=translate("records to show (%(default)s), evenly spaced over the split")
    )
    parser.add_argument(
        "--split",
        choices=("train", "validation", "test"),
        default="train",
        help=translate("split to show (%(default)s)"),
    )
    parser.add_argument("--output", type=Path, help=translate("file to write the page to (outputs/preview/NAME.html)"))


def run(arguments: argparse.Namespace) -> int:
    """Read and encode the data as a run would, print a summary and records, write the page."""
    from tunelab.cli.compose_config import compose_settings  # Hydra, which TAB does without

    if arguments.rows < 0:
        raise ConfigError(translate("--rows {rows} is below 0; give how many records to show", rows=arguments.rows))
    settings = compose_settings(arguments.overrides)

    console.silence_libraries()
    from tunelab.data.preview import mark_trained, preview_records
    from tunelab.data.summary_text import detail_sections
    from tunelab.report.data_page import render_data_page
    from tunelab.runs.atomic_files import write_text
    from tunelab.training.components import build_data_report, encode_data  # torch, which --help does without

    encoded = encode_data(settings)
    report = build_data_report(encoded)
    split = encoded.sources.splits[arguments.split]
    if not split.rows:
        raise ConfigError(
            translate("--split {split}: there is no such split; give data.{split}=FILE", split=arguments.split)
        )
    records = preview_records(encoded.task, split, encoded.examples[arguments.split], encoded.tokenizer, arguments.rows)
    console.show_data(encoded.counts)
    for title, lines in detail_sections(report):
        console.show_lines(title, lines)
    counts = {"count": len(records), "total": len(split.rows), "split": arguments.split}
    console.show_lines(
        translate("{count} of {total:,} [record|records] of {split}; trained tokens stand between ⟦ and ⟧", **counts)
        if encoded.task.head == "causal"
        else translate("{count} of {total:,} [record|records] of {split}", **counts),
        [],
    )
    for record in records:
        console.show_record(record.title, [mark_trained(part) for part in record.sequences], record.names)
        if record.target:
            console.say(record.target)
    path = arguments.output or Path("outputs", "preview", f"{settings.name}.html")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(
            path,
            render_data_page(
                translate("{task} data for {path}", task=settings.data.task, path=settings.model.path),
                report,
                records,
                arguments.split,
            ),
        )
    except OSError as fault:
        raise ConfigError(
            translate("--output {path} cannot be written: {value}", path=path, value=fault.strerror or fault)
        ) from fault
    console.show_paths({translate("page"): path})
    return 0
