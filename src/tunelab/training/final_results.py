"""A finished run's results: tables of generated answers for the terminal, scores and files for the trackers."""

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from tunelab.runs.run_dir import RunDirectory
from tunelab.tracking.base import ResultsLogger, RunResults, worst_predictions
from tunelab.training.components import RunComponents
from tunelab.training.evaluate_run import EvalOutcome


def log_results(prepared: RunComponents, folder: RunDirectory, outcome: EvalOutcome, loggers: Sequence[Logger]) -> None:
    """Let every tracker that can show the results of a run, once it is complete and its card closed."""
    showing = [logger for logger in loggers if isinstance(logger, ResultsLogger)]
    if showing:
        shown = gather_results(prepared, folder, outcome)
        for logger in showing:
            logger.log_results(shown)


def gather_results(prepared: RunComponents, folder: RunDirectory, outcome: EvalOutcome) -> RunResults:
    """Scores, confusion matrices, the worst predictions, and the files to keep with the run."""
    wanted = prepared.settings.logger
    confusion = {split: found["confusion"] for split, found in outcome.tables.items() if "confusion" in found}
    labels: list[str] = next((found["labels"] for found in outcome.tables.values() if "confusion" in found), [])
    matrices = {split: table for split, table in confusion.items() if len(table) == len(labels)}  # multilabel: C of 2x2
    return RunResults(
        scores={name: value for name, value in outcome.scores.items() if isfinite(value)},
        labels=labels,
        confusion=matrices,
        predictions=worst_predictions(read_predictions(folder), wanted.rows),
        files=tracked_files(folder, list(wanted.artifacts)),
    )


def read_predictions(folder: RunDirectory) -> list[dict[str, Any]]:
    """The predictions of the test split; none where it was left alone."""
    return folder.read_predictions() if folder.predictions.is_file() else []


def tracked_files(folder: RunDirectory, wanted: list[str]) -> dict[str, Path]:
    """What the trackers are asked to keep, as far as the run has left it."""
    places = {"export": folder.export}
    if "report" in wanted:
        from tunelab.report.compose import compose_report  # statistics that most runs do without
        from tunelab.report.render import write_report

        places["report"] = write_report(compose_report([folder.root]), folder.root / "report")["report"]
    return {kind: place for kind, place in places.items() if kind in wanted and place.exists()}


LISTED_GROUPS = 12  # groups of a table; the rest stands in the run folder
SCORE_COLUMNS = ("exact_match", "token_f1", "rougeL", "accuracy")

GroupRows = dict[str, dict[str, float]]


def answer_group_tables(tables: Mapping[str, Any]) -> dict[str, GroupRows]:
    """A table for each grouping of the test answers: the largest groups, before training and after.

    Args:
        tables: As `Outcome.tables`: `test` and perhaps `base`, each with `by_family` or `by_source`.

    Returns:
        Title to name of a group to name of a column to value.
    """
    found: dict[str, GroupRows] = {}
    for key in ("family", "source"):
        tuned: GroupRows = tables.get("test", {}).get(f"by_{key}", {})
        before: GroupRows = tables.get("base", {}).get(f"by_{key}", {})
        largest = sorted(tuned, key=lambda name: (-tuned[name]["rows"], name))
        rest = len(largest) - LISTED_GROUPS
        if tuned:
            title = f"test answers by {key}" + (f" ({rest} smaller ones are in scores.json)" if rest > 0 else "")
            found[title] = {name: group_columns(tuned[name], before.get(name, {})) for name in largest[:LISTED_GROUPS]}
    return found


def group_columns(tuned: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """One line: the number of rows, the exact match before training, the scores after it."""
    first: dict[str, float] = {"rows": int(tuned["rows"])}
    if "exact_match" in before:
        first["base exact_match"] = before["exact_match"]
    return first | {name: tuned[name] for name in SCORE_COLUMNS if name in tuned}
