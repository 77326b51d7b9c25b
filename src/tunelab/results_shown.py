"""A finished run's results, gathered for the trackers."""

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from tunelab.assemble import Prepared
from tunelab.record import RunFolder
from tunelab.scoring import Outcome
from tunelab.tracking.showing import Shown, Shows, worst_first


def show_results(prepared: Prepared, folder: RunFolder, outcome: Outcome, loggers: Sequence[Logger]) -> None:
    """Let every tracker that can show the results of a run, once it is complete and its card closed."""
    showing = [logger for logger in loggers if isinstance(logger, Shows)]
    if showing:
        shown = gather(prepared, folder, outcome)
        for logger in showing:
            logger.show(shown)


def gather(prepared: Prepared, folder: RunFolder, outcome: Outcome) -> Shown:
    """Scores, confusion matrices, the worst predictions with their texts, and the files to keep with the run."""
    wanted = prepared.settings.logger
    confusion = {split: found["confusion"] for split, found in outcome.tables.items() if "confusion" in found}
    labels: list[str] = next((found["labels"] for found in outcome.tables.values() if "confusion" in found), [])
    matrices = {split: table for split, table in confusion.items() if len(table) == len(labels)}  # multilabel: C of 2x2
    return Shown(
        scores={name: value for name, value in outcome.scores.items() if isfinite(value)},
        labels=labels,
        confusion=matrices,
        predictions=with_texts(prepared, worst_first(predictions(folder), int(wanted.get("rows") or 0))),
        files=files(folder, list(wanted.get("artifacts") or ())),
    )


def predictions(folder: RunFolder) -> list[dict[str, Any]]:
    """The predictions of the test split; none where it was left alone."""
    return folder.read_predictions() if folder.predictions.is_file() else []


def with_texts(prepared: Prepared, rows: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows with the text they belong to, where they do not carry it."""
    data, records = prepared.settings.data, prepared.sources.splits["test"].rows
    columns = [data[key] for key in ("text", "text_pair") if data.get(key)]
    return [
        {"row": row["row"]} | {name: records[row["row"]].get(name) for name in columns} | dict(row)
        if "prompt" not in row and columns
        else row
        for row in rows
    ]


def files(folder: RunFolder, wanted: list[str]) -> dict[str, Path]:
    """What the trackers are asked to keep, as far as the run has left it."""
    places = {"export": folder.export}
    if "report" in wanted:
        from tunelab.report.compose import document_of  # statistics that most runs do without
        from tunelab.report.writing import write_report

        places |= write_report(document_of([folder.root]), folder.root / "report")
    return {kind: place for kind, place in places.items() if kind in wanted and place.exists()}
