"""What trackers share: base loggers that never end a training, the results they show, tables."""

import logging
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch.loggers.logger import Logger
from torch import Tensor
from typing_extensions import override

from tunelab.runs.redact import redact

_log = logging.getLogger(__name__)


class UnnamedLogger(Logger):
    """A logger whose name and version are in no checkpoint's path, and that is given the config when it is made."""

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
        pass  # known from the start, or in config.yaml


class FaultTolerantLogger(UnnamedLogger):
    """A tracker of another project: what it meets must not end a training, since metrics.csv holds the same curves.

    Args:
        title: What the tracker is called in a message.
    """

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self._warned = False

    def guard(self, what: str, action: Callable[[], Any]) -> None:
        """Do something with the tracker; the first fault is told, later ones are not."""
        try:
            action()
        except Exception as fault:
            if not self._warned:
                self._warned = True
                consequence = "training goes on, metrics.csv is complete"
                _log.warning("%s %s failed (%s); %s", self._title, what, redacted_first_line(fault), consequence)


def redacted_first_line(fault: Exception) -> str:
    """A fault in one line, without secrets."""
    text = str(fault).strip().splitlines()
    return redact(f"{type(fault).__name__}: {text[0]}" if text else type(fault).__name__)  # type: ignore[no-any-return]


TableCell = str | float | int | bool | None


@dataclass(frozen=True)
class RunResults:
    """The results of a run, ready to be shown.

    Attributes:
        scores: By flat name, such as `test/f1`; finite.
        labels: Class names, C of them; empty where there are no classes.
        confusion: Rows of each real class that were given each class, (C, C), by split.
        predictions: Rows of the test split with what was predicted; those that are wrong come first.
        files: What is kept beside the run, by kind (`export`, `report`): a file or a folder each.
    """

    scores: Mapping[str, float] = field(default_factory=dict)
    labels: Sequence[str] = ()
    confusion: Mapping[str, Sequence[Sequence[int]]] = field(default_factory=dict)
    predictions: Sequence[Mapping[str, Any]] = ()
    files: Mapping[str, Path] = field(default_factory=dict)


@runtime_checkable
class ResultsLogger(Protocol):
    """A tracker that can show results."""

    def show(self, shown: RunResults) -> None:
        """Show them; called once, after the last score and before the run is closed."""


@runtime_checkable
class HistogramLogger(Protocol):
    """A tracker that can draw how values spread."""

    def log_histograms(self, values: Mapping[str, Tensor], step: int) -> None:
        """Draw each tensor's values at an optimizer step, by name of parameter."""


def records_table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[TableCell]]]:
    """Records as a table: every column that any record has, and one line for each record.

    A distribution over classes becomes the share of the likeliest one, a list the text of its parts.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return columns, [[_table_cell(row.get(name)) for name in columns] for row in rows]


def confusion_tables(shown: RunResults) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """Each confusion matrix as columns and lines, one line for each real class, by the name of its table."""
    return {
        f"{split}/confusion": (
            ["real \\ predicted", *shown.labels],
            [[label, *counted] for label, counted in zip(shown.labels, counts, strict=True)],
        )
        for split, counts in shown.confusion.items()
    }


def worst_predictions(rows: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """At most `most` rows, those furthest from what was wanted first, else in their order."""
    return sorted(rows, key=_prediction_error, reverse=True)[:most]


def markdown_table(columns: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown; line breaks and bars in a cell are written so that the table holds."""
    written = [[str(cell).replace("|", "\\|").replace("\n", " ⏎ ") for cell in line] for line in [columns, *lines]]
    return "\n".join(["| " + " | ".join(line) + " |" for line in [written[0], ["---"] * len(columns), *written[1:]]])


def _prediction_error(row: Mapping[str, Any]) -> float:
    """How far a prediction lies from what was wanted: 0 where it is right."""
    said = row.get("prediction")
    if "exact_match" in row:
        return 1.0 - float(row["exact_match"])
    if isinstance(said, int | float) and isinstance(row.get("target"), int | float):
        return abs(float(said) - float(row["target"]))
    return float(said != row.get("label", row.get("target", said)))


def _table_cell(value: Any) -> TableCell:
    if value is None or isinstance(value, str | float | int | bool):
        return value
    if isinstance(value, Mapping):
        return max((float(share) for share in value.values() if isinstance(share, int | float)), default=None)
    return ", ".join(str(part) for part in value) if isinstance(value, list | tuple) else str(value)
