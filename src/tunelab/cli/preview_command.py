"""`tunelab preview`: the data as the model will see it, before anything is trained."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tunelab.errors import ConfigError
from tunelab.language.translation import localize, message, translate
from tunelab.runs import console

if TYPE_CHECKING:
    from tunelab.cli.compose_config import ComposedConfig
    from tunelab.cli.kept_preview import PreviewContent, PreviewPlace
    from tunelab.config.schema import RunConfig

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
    from tunelab.cli.compose_config import compose_config  # Hydra, which TAB does without
    from tunelab.cli.kept_preview import counted_output

    if arguments.rows < 0:
        raise ConfigError(translate("--rows {rows} is below 0; give how many records to show", rows=arguments.rows))
    with counted_output() as written:
        composed = compose_config(arguments.overrides)
        place = find_place(composed, arguments)
        preview = None if place is None else place.read()
        if preview is None:
            preview, kept = make_preview(composed.check(), arguments)
            # a file may have changed meanwhile; and what else was said would not be said again
            if kept and not written[0] and place is not None and place == find_place(composed, arguments):
                place.keep(preview)
    show_preview(preview, arguments)
    return 0


def find_place(composed: "ComposedConfig", arguments: argparse.Namespace) -> "PreviewPlace | None":
    """Where the preview of a config is kept; None where it is not."""
    from tunelab.cli.kept_preview import preview_place
    from tunelab.config.validate import resolve_values

    values, faults = resolve_values(composed.config)
    return None if faults else preview_place(values, (arguments.rows, arguments.split))


def make_preview(settings: "RunConfig", arguments: argparse.Namespace) -> "tuple[PreviewContent, bool]":
    """What a preview shows, and whether its data are large and kept, so that it is worth being kept too."""
    from tunelab.cli.kept_preview import PreviewContent

    console.silence_libraries()
    from tunelab.data.preview import mark_trained, preview_records
    from tunelab.data.summary_text import detail_sections
    from tunelab.report.data_page import render_data_page
    from tunelab.training.components import build_data_report, encode_data  # torch, which --help does without

    encoded = encode_data(settings)
    report = build_data_report(encoded)
    split = encoded.sources.splits[arguments.split]
    if not split.rows:
        raise ConfigError(
            translate("--split {split}: there is no such split; give data.{split}=FILE", split=arguments.split)
        )
    records = preview_records(encoded.task, split, encoded.examples[arguments.split], encoded.tokenizer, arguments.rows)
    counts = {"count": len(records), "total": len(split.rows), "split": arguments.split}
    title = translate("{task} data for {path}", task=settings.data.task, path=settings.model.path)
    preview = PreviewContent(
        settings.name,
        encoded.counts,
        [(localize(name), lines) for name, lines in detail_sections(report)],
        translate("{count} of {total:,} [record|records] of {split}; trained tokens stand between ⟦ and ⟧", **counts)
        if encoded.task.head == "causal"
        else translate("{count} of {total:,} [record|records] of {split}", **counts),
        [
            (record.title, [mark_trained(part) for part in record.sequences], record.names, record.target)
            for record in records
        ],
        render_data_page(title, report, records, arguments.split),
    )
    return preview, encoded.entry is not None


def show_preview(preview: "PreviewContent", arguments: argparse.Namespace) -> None:
    """Print a preview and write its page."""
    from tunelab.runs.atomic_files import write_text

    console.show_data(preview.counts)
    for title, lines in preview.details:
        console.show_lines(title, lines)
    console.show_lines(preview.heading, [])
    for title, sequences, names, target in preview.records:
        console.show_record(title, sequences, names)
        if target:
            console.say(target)
    path = arguments.output or Path("outputs", "preview", f"{preview.name}.html")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, preview.page)
    except OSError as fault:
        raise ConfigError(
            translate("--output {path} cannot be written: {value}", path=path, value=fault.strerror or fault)
        ) from fault
    console.show_paths({translate("page"): path})
