"""A finished run's results: tables of generated answers for the terminal, scores and files for the trackers."""

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from tunelab.analysis.row_scores import ANSWER_SCORES, GROUP_KEYS
from tunelab.language.translation import translate
from tunelab.runs.run_dir import RunDirectory
from tunelab.tracking.base import ResultsLogger, RunResults, worst_predictions
from tunelab.training.components import RunComponents
from tunelab.training.evaluate_run import EvalOutcome


def log_results(
    components: RunComponents, folder: RunDirectory, outcome: EvalOutcome, loggers: Sequence[Logger]
) -> None:
    """Send the results of a complete run to every tracker that takes them; its manifest must be closed."""
    showing = [logger for logger in loggers if isinstance(logger, ResultsLogger)]
    if showing:
        results = gather_results(components, folder, outcome)
        for logger in showing:
            logger.log_results(results)


def gather_results(components: RunComponents, folder: RunDirectory, outcome: EvalOutcome) -> RunResults:
    """Scores, confusion matrices, the worst predictions, and the files to keep with the run."""
    config = components.settings.logger
    confusion = {split: table["confusion"] for split, table in outcome.tables.items() if "confusion" in table}
    labels: list[str] = next((table["labels"] for table in outcome.tables.values() if "confusion" in table), [])
    matrices = {split: table for split, table in confusion.items() if len(table) == len(labels)}  # multilabel: C of 2x2
    return RunResults(
        scores={name: value for name, value in outcome.scores.items() if isfinite(value)},
        labels=labels,
        confusion=matrices,
        predictions=worst_predictions(read_predictions(folder), config.rows),
        files=tracked_files(folder, list(config.artifacts)),
    )


def read_predictions(folder: RunDirectory) -> list[dict[str, Any]]:
    """The predictions of the test split; none where it was left alone."""
    return folder.read_predictions() if folder.predictions.is_file() else []


def tracked_files(folder: RunDirectory, kinds: list[str]) -> dict[str, Path]:
    """The files that trackers shall keep, by kind, as far as the run has left them."""
    places = {"export": folder.export}
    if "report" in kinds:
        from tunelab.report.compose import compose_report  # statistics that most runs do without
        from tunelab.report.render import write_report

        places["report"] = write_report(compose_report([folder.root]), folder.root / "report")["report"]
    return {kind: place for kind, place in places.items() if kind in kinds and place.exists()}


LISTED_GROUPS = 12  # groups of a table; the rest stands in the run folder
SCORE_COLUMNS = (*ANSWER_SCORES, "accuracy")

GroupRows = dict[str, dict[str, float]]


def answer_group_tables(tables: Mapping[str, Any]) -> dict[str, GroupRows]:
    """A table for each grouping of the test answers: the largest groups, before training and after.

    Args:
        tables: As `EvalOutcome.tables`: `test` and perhaps `base`, each with `by_family` or `by_source`.

    Returns:
        Title to name of a group to name of a column to value.
    """
    groups: dict[str, GroupRows] = {}
    for key in GROUP_KEYS:
        tuned: GroupRows = tables.get("test", {}).get(f"by_{key}", {})
        before: GroupRows = tables.get("base", {}).get(f"by_{key}", {})
        largest = sorted(tuned, key=lambda name: (-tuned[name]["rows"], name))
        rest = len(largest) - LISTED_GROUPS
        if tuned:
            title = translate("test answers by family" if key == "family" else "test answers by source")
            if rest > 0:
                title = translate("{title} ({count} smaller [one is|ones are] in scores.json)", title=title, count=rest)
            groups[title] = {name: group_columns(tuned[name], before.get(name, {})) for name in largest[:LISTED_GROUPS]}
    return groups


def group_columns(tuned: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """One line: the number of rows, the exact match before training, the scores after it."""
    first: dict[str, float] = {"rows": int(tuned["rows"])}
    if "exact_match" in before:
        first["base exact_match"] = before["exact_match"]
    return first | {name: tuned[name] for name in SCORE_COLUMNS if name in tuned}
