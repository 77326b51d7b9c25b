"""What a tracker shows of a finished run beside its curves, and who can show it.  Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

Cell = str | float | int | bool | None


@dataclass(frozen=True)
class Shown:
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
class Shows(Protocol):
    """A tracker that can show results."""

    def show(self, shown: Shown) -> None:
        """Show them; called once, after the last score and before the run is closed."""


@runtime_checkable
class DrawsGradients(Protocol):
    """A tracker that can draw how values spread."""

    def log_histograms(self, values: Mapping[str, Tensor], step: int) -> None:
        """Draw each tensor's values at an optimizer step, by name of parameter."""


def table_of(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Cell]]]:
    """Records as a table: every column that any record has, and one line for each record.

    A distribution over classes becomes the share of the likeliest one, a list the text of its parts.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return columns, [[_cell(row.get(name)) for name in columns] for row in rows]


def confusion_tables(shown: Shown) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """Each confusion matrix as columns and lines, one line for each real class, by the name of its table."""
    return {
        f"{split}/confusion": (
            ["real \\ predicted", *shown.labels],
            [[label, *counted] for label, counted in zip(shown.labels, counts, strict=True)],
        )
        for split, counts in shown.confusion.items()
    }


def worst_first(rows: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """At most `most` rows, those furthest from what was wanted first, else in their order."""
    return sorted(rows, key=_miss, reverse=True)[:most]


def markdown_table(columns: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown; line breaks and bars in a cell are written so that the table holds."""
    written = [[str(cell).replace("|", "\\|").replace("\n", " ⏎ ") for cell in line] for line in [columns, *lines]]
    return "\n".join(["| " + " | ".join(line) + " |" for line in [written[0], ["---"] * len(columns), *written[1:]]])


def _miss(row: Mapping[str, Any]) -> float:
    """How far a prediction lies from what was wanted: 0 where it is right."""
    said = row.get("prediction")
    if "exact_match" in row:
        return 1.0 - float(row["exact_match"])
    if isinstance(said, int | float) and isinstance(row.get("target"), int | float):
        return abs(float(said) - float(row["target"]))
    return float(said != row.get("label", row.get("target", said)))


def _cell(value: Any) -> Cell:
    if value is None or isinstance(value, str | float | int | bool):
        return value
    if isinstance(value, Mapping):
        return max((float(share) for share in value.values() if isinstance(share, int | float)), default=None)
    return ", ".join(str(part) for part in value) if isinstance(value, list | tuple) else str(value)
