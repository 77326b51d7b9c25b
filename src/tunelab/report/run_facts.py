"""What a run folder tells, read without ever failing: what is missing or torn is said in words."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tunelab.errors import TuneLabError
from tunelab.monitored import direction
from tunelab.record import RunFolder

T = TypeVar("T")
Row = dict[str, Any]


@dataclass(frozen=True)
class RunFacts:
    """A run, as its files tell it.

    Attributes:
        root: Its folder.
        card: How it came to be and how it ended.
        scores: Final scores by flat name.
        curves: Scores over steps, a row each; `step` counts from 0.
        predictions: One for each row of the test split.
        base: The same of the model before training.
        tables: Confusion matrix, per-class scores, scores by group; by split.
        data: The data report.
        doctor: What was found while it trained.
        missing: Files that are not there or cannot be read, in sentences.
    """

    root: Path
    card: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    curves: Sequence[Mapping[str, float]] = ()
    predictions: Sequence[Row] = ()
    base: Sequence[Row] = ()
    tables: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    doctor: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The folder and the one above it, which is the experiment or the study."""
        return "/".join(self.root.absolute().parts[-2:])

    @property
    def status(self) -> str:
        """How it ended."""
        return str(self.card.get("status") or "unknown")

    @property
    def config(self) -> Mapping[str, Any]:
        """Every setting."""
        found = self.card.get("config")
        return found if isinstance(found, Mapping) else {}

    @property
    def task(self) -> str:
        """`instruction`, `classification`, `regression` or `preference`; told by the predictions where no card is."""
        data = self.config.get("data")
        known = data.get("task") if isinstance(data, Mapping) else None
        if known:
            return str(known)
        first = self.predictions[0] if self.predictions else {}
        kinds = {"probabilities": "classification", "reference": "instruction", "target": "regression"}
        return next((kind for key, kind in kinds.items() if key in first), "preference" if "margin" in first else "")

    @property
    def best(self) -> Mapping[str, Any]:
        """Step, monitored score and its value at the best checkpoint; empty without one."""
        found = self.card.get("best")
        return found if isinstance(found, Mapping) else {}

    @property
    def monitor(self) -> str:
        """The score that the run followed; empty where nothing tells."""
        return str(self.best.get("monitor") or "")

    @property
    def lower(self) -> bool:
        """Whether the followed score is better when it is lower."""
        mode = str(self.config.get("mode") or "auto")
        return (mode if mode in ("min", "max") else direction(self.monitor)) == "min"


def read_run(root: Path) -> RunFacts:
    """Everything that a run folder holds."""
    folder, missing = RunFolder(root), list[str]()

    def read(what: str, path: Path, ask: Callable[[], T], empty: T, kind: type, *, needed: bool = True) -> T:
        try:
            found = ask()
        except (OSError, ValueError, TypeError, KeyError, AttributeError, TuneLabError) as fault:
            if path.exists():
                missing.append(f"{path.name} cannot be read ({first_line(fault)}), so this report lacks {what}")
            elif needed:
                missing.append(f"{path.name} is missing, so this report lacks {what}")
            return empty
        return found if isinstance(found, kind) else empty

    base, doctor = folder.base_predictions, root / "doctor.json"
    nothing: dict[str, Any] = {}
    card: dict[str, Any] = read("settings, versions and how it ended", folder.card, folder.read_card, nothing, dict)
    lines: list[Row] = read("worst errors and calibration", folder.predictions, folder.read_predictions, [], list)
    return RunFacts(
        root,
        card,
        read("final scores", folder.metrics, folder.read_scores, nothing, dict),
        read("curves", folder.curves, folder.read_curves, [], list),
        rows_of(lines),
        rows_of(read("answers before training", base, lambda: lines_of(base), [], list, needed=False)),
        read("tables", folder.tables, folder.read_tables, nothing, dict, needed=False),
        read("what the data holds", folder.report, folder.read_report, nothing, dict),
        read(
            "the doctor's findings",
            doctor,
            lambda: dict(json.loads(doctor.read_text("utf-8"))),
            nothing,
            dict,
            needed=False,
        ),
        tuple(missing),
    )


def rows_of(found: Sequence[Any]) -> list[Row]:
    """The rows that are JSON objects with a number of their record."""
    return [row for row in found if isinstance(row, dict) and isinstance(row.get("row"), int)]


def lines_of(path: Path) -> list[Any]:
    """The JSON values of a file, one a line."""
    with path.open(encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def first_line(fault: BaseException) -> str:
    """What went wrong, on one line."""
    return (str(fault).splitlines() or [type(fault).__name__])[0][:200]
