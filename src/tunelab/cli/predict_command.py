"""`tunelab predict`: predictions of a trained run, or of an ensemble, for a file of records."""

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tunelab.cli.base_option import add_base_option
from tunelab.language.translation import message, translate

EPILOG = message("""
Reads json, jsonl, csv, tsv or parquet with the columns that the run learned from; labels and answers need not be
there.  Writes jsonl or csv: every row, in order, with all its columns and
  prediction      the label, the list of labels, the number in your units, or the answer
  probabilities   of each label by its name (classification)
  agreement       share of the votes that fell on the answer (an ensemble of --method hard that writes)
  error           why a row could not be used; its prediction is then empty
A run of this command that was killed goes on where it stopped when it is started again with the same arguments.
""")
ON_BAD_CHOICES = ("error", "clean")
PROGRESS_SECONDS = 10.0  # seconds between two lines of progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `tunelab predict`."""
    parser.epilog = translate(EPILOG)
    parser.add_argument("run", metavar="RUN", help=translate("folder of a run, or of an ensemble"))
    parser.add_argument(
        "--input", required=True, metavar="FILE", help=translate("records: json, jsonl, csv, tsv or parquet")
    )
    parser.add_argument(
        "--output", required=True, metavar="FILE", help=translate("where to: a name that ends in .jsonl or .csv")
    )
    parser.add_argument("--overwrite", action="store_true", help=translate("replace an output that is there already"))
    parser.add_argument(
        "--batch-tokens", type=int, metavar="N", help=translate("most tokens at once; the run's micro_tokens")
    )
    parser.add_argument(
        "--max-new-tokens", type=int, metavar="N", help=translate("longest answer; the run's eval.max_new_tokens")
    )
    add_on_bad_argument(parser, translate("the run's, if that is clean, else error: every row must come back"))
    parser.add_argument(
        "--header", metavar="A,B,C", help=translate("column names of a csv or tsv file without a header line")
    )
    add_base_option(parser)


def add_on_bad_argument(parser: argparse.ArgumentParser, usual: str) -> None:
    """Add the option `--on-bad`; `usual` says what holds without it."""
    parser.add_argument(
        "--on-bad",
        choices=ON_BAD_CHOICES,
        help=translate(
            "control characters in texts: error refuses the file, clean takes them out; {usual}", usual=usual
        ),
    )


def run(arguments: Any) -> int:
    """Predict and write the output; 0 unless no row at all could be used."""
    from tunelab.data.columns import without_columns
    from tunelab.data.data_sources import unread_column_notes
    from tunelab.data.readers import read_records
    from tunelab.errors import ConfigError, DataError
    from tunelab.generation import prediction
    from tunelab.generation.prediction_files import PartialPredictions, check_output_path, write_predictions
    from tunelab.runs import console  # torch, which --help does without
    from tunelab.runs.base_weights import allow_changed_base
    from tunelab.runs.run_dir import RunDirectory
    from tunelab.training.load_run import load_run

    console.silence_libraries()
    allow_changed_base(arguments.allow_changed_base)
    target = check_output_path(Path(arguments.output), overwrite=arguments.overwrite)
    ensemble, predict = None, None
    if RunDirectory(Path(arguments.run).expanduser()).ensemble.is_file():
        from tunelab.ensemble.ensemble_inference import answer_records, load_ensemble  # SciPy, which a run does without

        ensemble = load_ensemble(arguments.run)
        predict = partial(answer_records, ensemble) if ensemble else None
    members = ensemble.members if ensemble else [load_run(arguments.run)]
    trained = ensemble or members[0]
    predict = predict or partial(prediction.predict_window, members[0])
    if trained.note:
        console.say(trained.note)
    settings = trained.settings
    header = arguments.header.split(",") if arguments.header else None
    encoding, quoting = settings.data.encoding, settings.data.quoting
    on_bad = arguments.on_bad or ("clean" if settings.data.on_bad == "clean" else "error")
    records = read_records(arguments.input, encoding=encoding, quoting=quoting, header=header, on_bad=on_bad)
    refuse_reserved_columns(records.columns())
    questions = without_columns(records.rows, settings.data.ignored)
    task = members[0].task
    for line in [
        *records.notes,
        *unread_column_notes(questions, task),
        *prediction.unknown_token_notes(task, questions),
    ]:
        console.say(line)
    longest = getattr(trained.task, "max_new_tokens", None)
    if arguments.max_new_tokens is not None:
        if longest is None:
            raise ConfigError(
                translate(
                    "--max-new-tokens: a {name} run gives labels or numbers, leave it out", name=trained.task.name
                )
            )
        longest = require_positive("--max-new-tokens", arguments.max_new_tokens)
        for member in members:
            setattr(member.task, "max_new_tokens", longest)  # noqa: B010  # only tasks that write have it
    batch_tokens = require_positive("--batch-tokens", arguments.batch_tokens or settings.micro_tokens)
    identity = {"input": records.sha256, "model": trained.identity(), "--max-new-tokens": longest}
    with PartialPredictions(target.with_name(f"{target.name}.partial"), identity) as partial_predictions:
        if partial_predictions.predictions:
            done = {"row": len(partial_predictions.predictions), "total": len(records.rows)}
            console.say(translate("continuing after row {row} of {total}", **done))
        last_printed = time.monotonic()
        for window in prediction.predict_windows(
            lambda rows: predict(rows, batch_tokens), questions, len(partial_predictions.predictions)
        ):
            partial_predictions.add(window)
            if time.monotonic() - last_printed > PROGRESS_SECONDS:
                done = {"row": len(partial_predictions.predictions), "total": len(records.rows)}
                console.say(translate("row {row} of {total}", **done))
                last_printed = time.monotonic()
        bad = [place for place, answer in enumerate(partial_predictions.predictions) if "error" in answer]
        if len(bad) < len(records.rows):
            write_predictions(target, records, partial_predictions.predictions)
        partial_predictions.delete()
    first_errors = [
        f"{records.location(place)}: {partial_predictions.predictions[place]['error']}" for place in bad[:5]
    ]
    if len(bad) == len(records.rows):
        text = translate("none of {count} [row|rows] can be used, so there is no output:", count=len(bad))
        raise DataError("\n  ".join([text, *first_errors]))
    if bad:
        text = translate("{count} [row|rows] could not be used, see [its|their] `error`:", count=len(bad))
        console.say("\n  ".join([text, *first_errors]))
    counts = {"count": len(records.rows) - len(bad), "total": len(records.rows)}
    console.say(translate("{count} of {total} [row|rows] predicted: {path}", path=target, **counts))
    return 0


def refuse_reserved_columns(columns: Sequence[str]) -> None:
    """Refuse an input with a column of the name of an output column.

    Raises:
        DataError: If it has one.
    """
    from tunelab.errors import DataError
    from tunelab.generation.prediction_files import OUTPUT_COLUMNS

    if taken := [name for name in OUTPUT_COLUMNS if name in columns]:
        raise DataError(
            translate(
                "the input has a column {names} already, which the output would hide; rename it", names=", ".join(taken)
            )
        )


def require_positive(name: str, value: int) -> int:
    """The value of an option that must be at least 1.

    Raises:
        ConfigError: If it is below 1.
    """
    from tunelab.errors import ConfigError

    if value < 1:
        raise ConfigError(translate("{name}={value} is out of range; it must be at least 1", name=name, value=value))
    return value
