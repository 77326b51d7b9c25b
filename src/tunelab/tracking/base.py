"""Base classes of the loggers, the results of a run that they log, and tables of these."""

import logging
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch.loggers.logger import Logger
from torch import Tensor
from typing_extensions import override

from tunelab.errors import first_line
from tunelab.runs.redact import redact

_log = logging.getLogger(__name__)


class UnnamedLogger(Logger):
    """A logger without name and version, so that neither becomes part of a checkpoint's path."""

    @property
    @override
    def name(self) -> str | None:
        return None  # a name would become part of the checkpoint path

    @property
    @override
    def version(self) -> str | None:
        return None

    @override
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        pass  # the constructor has them, or config.yaml


class FaultTolerantLogger(UnnamedLogger):
    """A logger whose errors never stop a training, since metrics.csv holds the same curves.

    Args:
        title: Name of the tracker in warnings.
    """

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self._warned = False

    def attempt(self, what: str, action: Callable[[], Any]) -> None:
        """Call `action`; its first error is logged as a warning, later ones are dropped."""
        try:
            action()
        except Exception as fault:
            if not self._warned:
                self._warned = True
                consequence = "training goes on, metrics.csv is complete"
                _log.warning("%s %s failed (%s); %s", self._title, what, redacted_first_line(fault), consequence)


def redacted_first_line(fault: Exception) -> str:
    """Type and first line of an error, with secrets blacked out."""
    kind, line = type(fault).__name__, first_line(fault)
    return redact(kind if line == kind else f"{kind}: {line}")  # type: ignore[no-any-return]


TableCell = str | float | int | bool | None


@dataclass(frozen=True)
class RunResults:
    """The final results of a run, as loggers take them.

    Attributes:
        scores: By flat name, such as `test/f1`; finite.
        labels: Class names, C of them; empty where there are no classes.
        confusion: Number of rows by true class and predicted class, (C, C), by split.
        predictions: Rows of the test split with their prediction; the worst come first.
        files: Files and folders to upload, by kind (`export`, `report`).
    """

    scores: Mapping[str, float] = field(default_factory=dict)
    labels: Sequence[str] = ()
    confusion: Mapping[str, Sequence[Sequence[int]]] = field(default_factory=dict)
    predictions: Sequence[Mapping[str, Any]] = ()
    files: Mapping[str, Path] = field(default_factory=dict)


FINAL_PREFIXES = ("base/", "test/", "last/")  # of scores that a run has once, at its end: numbers, no curves


def split_final_scores(metrics: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics that are points of curves, and scores that a run has once."""
    final = {name: value for name, value in metrics.items() if name.startswith(FINAL_PREFIXES)}
    return {name: value for name, value in metrics.items() if name not in final}, final


@runtime_checkable
class ResultsLogger(Protocol):
    """A logger that takes final results."""

    def log_results(self, results: RunResults) -> None:
        """Log the results; called once, after the last score and before the run is closed."""


@runtime_checkable
class HistogramLogger(Protocol):
    """A logger that takes histograms."""

    def log_histograms(self, values: Mapping[str, Tensor], step: int) -> None:
        """Log a histogram of each tensor, by name of parameter, at an optimizer step."""


def records_table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[TableCell]]]:
    """Columns and lines of a table of records, with every column that any record has.

    A distribution over classes becomes the probability of the likeliest one, a list the text of its items.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return columns, [[_table_cell(row.get(name)) for name in columns] for row in rows]


def scores_table(scores: Mapping[str, float]) -> tuple[list[str], list[list[TableCell]]]:
    """Columns and lines of a table of final scores, one line for each name, test first and base last."""
    order = ("test", "val", "last", "train")
    splits = dict.fromkeys(name.rpartition("/")[0] for name in scores)
    columns = sorted(splits, key=lambda split: order.index(split) if split in order else len(order))
    names = dict.fromkeys(name.rpartition("/")[2] for name in scores)
    lines: list[list[TableCell]] = [[name, *(scores.get(f"{split}/{name}") for split in columns)] for name in names]
    return ["score", *columns], lines


def confusion_tables(results: RunResults) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """Columns and lines of each confusion matrix, one line for each true class, by table name."""
    return {
        f"{split}/confusion": (
            ["true \\ predicted", *results.labels],
            [[label, *line] for label, line in zip(results.labels, counts, strict=True)],
        )
        for split, counts in results.confusion.items()
    }


def worst_predictions(rows: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """At most `most` rows, largest error first, rows of equal error in their order."""
    return sorted(rows, key=_prediction_error, reverse=True)[:most]


def markdown_table(columns: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown, with line breaks and bars in cells escaped."""
    escaped = [[str(cell).replace("|", "\\|").replace("\n", " ⏎ ") for cell in line] for line in [columns, *lines]]
    return "\n".join(["| " + " | ".join(line) + " |" for line in [escaped[0], ["---"] * len(columns), *escaped[1:]]])


def _prediction_error(row: Mapping[str, Any]) -> float:
    """Error of a prediction: 0 where it is correct, of a number the distance, else 1."""
    predicted = row.get("prediction")
    if "exact_match" in row:
        return 1.0 - float(row["exact_match"])
    if isinstance(predicted, int | float) and isinstance(row.get("target"), int | float):
        return abs(float(predicted) - float(row["target"]))
    return float(predicted != row.get("label", row.get("target", predicted)))


def _table_cell(value: Any) -> TableCell:
    if value is None or isinstance(value, str | float | int | bool):
        return value
    if isinstance(value, Mapping):
        return max((float(share) for share in value.values() if isinstance(share, int | float)), default=None)
    return ", ".join(str(part) for part in value) if isinstance(value, list | tuple) else str(value)
