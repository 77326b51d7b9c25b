"""A finished run's results, gathered for the trackers."""

from collections.abc import Sequence
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
    """Scores, confusion matrices, the worst predictions, and the files to keep with the run."""
    wanted = prepared.settings.logger
    confusion = {split: found["confusion"] for split, found in outcome.tables.items() if "confusion" in found}
    labels: list[str] = next((found["labels"] for found in outcome.tables.values() if "confusion" in found), [])
    matrices = {split: table for split, table in confusion.items() if len(table) == len(labels)}  # multilabel: C of 2x2
    return Shown(
        scores={name: value for name, value in outcome.scores.items() if isfinite(value)},
        labels=labels,
        confusion=matrices,
        predictions=worst_first(predictions(folder), int(wanted.get("rows") or 0)),
        files=files(folder, list(wanted.get("artifacts") or ())),
    )


def predictions(folder: RunFolder) -> list[dict[str, Any]]:
    """The predictions of the test split; none where it was left alone."""
    return folder.read_predictions() if folder.predictions.is_file() else []


def files(folder: RunFolder, wanted: list[str]) -> dict[str, Path]:
    """What the trackers are asked to keep, as far as the run has left it."""
    places = {"export": folder.export}
    if "report" in wanted:
        from tunelab.report.compose import document_of  # statistics that most runs do without
        from tunelab.report.writing import write_report

        places["report"] = write_report(document_of([folder.root]), folder.root / "report")["report"]
    return {kind: place for kind, place in places.items() if kind in wanted and place.exists()}
