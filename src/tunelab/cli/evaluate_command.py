"""`tunelab evaluate`: the scores of a trained run, or of an ensemble, on another file."""

import argparse
from pathlib import Path

from tunelab.cli.base_option import add_base_option
from tunelab.cli.predict_command import add_on_bad_argument
from tunelab.language.translation import message, translate

EPILOG = message("""
The scores are those of training's own test pass: the same rows give the same numbers.  The file needs the columns that
the run learned from, labels and answers too.
""")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `tunelab evaluate`."""
    parser.epilog = translate(EPILOG)
    parser.add_argument("run", metavar="RUN", help=translate("folder of a run, or of an ensemble"))
    parser.add_argument(
        "--data", required=True, metavar="FILE", help=translate("records: json, jsonl, csv, tsv or parquet")
    )
    parser.add_argument("--output", metavar="FILE", help=translate("scores and tables as JSON"))
    add_on_bad_argument(parser, translate("the run's data.on_bad"))
    add_base_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate on the file and print the scores as a table."""
    from tunelab.data.data_sources import unread_column_notes
    from tunelab.errors import ConfigError
    from tunelab.generation.prediction import unknown_token_notes
    from tunelab.runs import console  # torch, which --help does without
    from tunelab.runs.atomic_files import write_json
    from tunelab.runs.base_weights import allow_changed_base
    from tunelab.runs.run_dir import RunDirectory
    from tunelab.training.evaluate_run import evaluate_split, read_eval_split, record_evaluation
    from tunelab.training.load_run import load_run

    console.silence_libraries()
    allow_changed_base(arguments.allow_changed_base)
    output = Path(arguments.output) if arguments.output else None
    if output is not None and not output.parent.is_dir():
        raise ConfigError(
            translate(
                "--output={output}: there is no folder {folder}; make it first", output=output, folder=output.parent
            )
        )
    ensemble = None
    if RunDirectory(Path(arguments.run).expanduser()).ensemble.is_file():
        from tunelab.ensemble.ensemble_inference import evaluate_ensemble, load_ensemble  # SciPy and Lightning

        ensemble = load_ensemble(arguments.run)
    members = ensemble.members if ensemble else [load_run(arguments.run)]
    trained = ensemble or members[0]
    if trained.note:
        console.say(trained.note)
    records, split = read_eval_split(trained.settings, arguments.data, arguments.on_bad)
    result = evaluate_ensemble(ensemble, split) if ensemble else evaluate_split(members[0], split)
    console.show_data({Path(arguments.data).name: result.counts})
    console.show_scores({translate("value"): result.scores})
    task = members[0].task
    of_data = [*records.notes, *unread_column_notes(split.rows, task), *unknown_token_notes(task, split.rows)]
    for line in [*of_data, *record_evaluation(trained.folder, records)]:
        console.say(line)
    if output is not None:
        names = {"run": str(trained.folder.root), "data": records.source, "sha256": records.sha256}
        write_json(output, {**names, "counts": result.counts, "scores": result.scores, "tables": result.tables})
        console.show_paths({translate("scores"): output})
    return 0
