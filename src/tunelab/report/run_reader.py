"""Run folders read for a report, and checks of its paths: a missing or broken file becomes a sentence, no error."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, TypeVar

from tunelab.config.stored_files import SHAPE_FAULTS
from tunelab.errors import ConfigError, TuneLabError, first_line
from tunelab.language.translation import translate
from tunelab.runs.atomic_files import Row, read_json_lines
from tunelab.runs.run_dir import RunDirectory
from tunelab.runs.stored_json import read_stored_json
from tunelab.runs.study_folder import StudyFolder
from tunelab.tasks.metrics.directions import metric_direction
from tunelab.tasks.registry import DESCRIPTIONS, TaskDescription, describe_task

if TYPE_CHECKING:
    from tunelab.analysis.row_scores import RowScore  # loads numpy, which reading a run does without

MAX_FAULT_LENGTH = 200  # characters of an error that a report repeats
LISTED_FOLDERS = 3  # runs below a folder that a message names


def is_study_folder(path: Path) -> bool:
    """Whether a folder is that of a search."""
    folder = StudyFolder(path)
    return any(file.is_file() for file in (folder.trials, folder.summary, folder.study_config))


def is_run_folder(path: Path) -> bool:
    """Whether a folder is that of a run, even one without a manifest."""
    folder = RunDirectory(path)
    return any(file.is_file() for file in (folder.manifest, folder.metrics, folder.curves, folder.predictions))


def check_report_paths(paths: Sequence[Path]) -> None:
    """Raise if a path is neither a run nor a study.

    Raises:
        ConfigError: Naming each such path, what is there, and what to give instead.
    """
    faults = [f"{path} {path_fault(path)}" for path in paths if not is_run_folder(path) and not is_study_folder(path)]
    if len(set(paths)) < len(paths):
        faults.append(translate("a path is there twice, and nothing differs from itself; give each once"))
    if faults:
        raise ConfigError(translate("cannot report on this:\n") + "\n".join(f"  - {fault}" for fault in faults))


def path_fault(path: Path) -> str:
    """The reason why a path cannot be reported on, and what to give instead."""
    if not path.exists():
        return translate("does not exist; give a run folder or a study folder, as training and search print them")
    if not path.is_dir():
        return translate("is a file, not a folder; did you mean {parent}?", parent=path.parent)
    below = sorted(
        folder for folder in path.iterdir() if folder.is_dir() and (is_run_folder(folder) or is_study_folder(folder))
    )
    if below:
        named = " ".join(str(folder) for folder in below[:LISTED_FOLDERS])
        return translate(
            "holds {count} [run or study|runs or studies] but is none itself; give them one by one: {named}",
            count=len(below),
            named=named,
        )
    return translate("is neither a run (no run.json, metrics.json or metrics.csv) nor a study (no trials.jsonl)")


T = TypeVar("T")


@dataclass(frozen=True)
class RunResults:
    """The files of a run, read for a report.

    Attributes:
        root: Its folder.
        manifest: Its provenance, and how it ended.
        scores: Final scores by flat name.
        curves: Scores over steps, a row each; `step` counts from 0.
        predictions: One for each row of the test split.
        base_predictions: The same of the model before training.
        tables: Confusion matrix, per-class scores, scores by group; by split.
        data_report: The data report.
        doctor_findings: What was found while it trained.
        read_faults: Files that are not there or cannot be read, in sentences.
    """

    root: Path
    manifest: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    curves: Sequence[Mapping[str, float]] = ()
    predictions: Sequence[Row] = ()
    base_predictions: Sequence[Row] = ()
    tables: Mapping[str, Any] = field(default_factory=dict)
    data_report: Mapping[str, Any] = field(default_factory=dict)
    doctor_findings: Mapping[str, Any] = field(default_factory=dict)
    read_faults: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The names of the folder and of the one above it, which is the experiment or the study."""
        return "/".join(self.root.absolute().parts[-2:])

    @property
    def status(self) -> str:
        """The status at the end, such as `finished`."""
        return str(self.manifest.get("status") or "unknown")

    @property
    def config(self) -> Mapping[str, Any]:
        """Every setting, nested."""
        config = self.manifest.get("config")
        return config if isinstance(config, Mapping) else {}

    @property
    def task(self) -> str:
        """The task, as `data.task` names it; without a manifest, the one whose predictions have such columns."""
        data = self.config.get("data")
        known = data.get("task") if isinstance(data, Mapping) else None
        if known:
            return str(known)
        columns = self.predictions[0] if self.predictions else {}
        return next((name for name, task in DESCRIPTIONS.items() if task.prediction_column in columns), "")

    @cached_property
    def description(self) -> TaskDescription:
        """The task's description; the default one if the task cannot be imported here."""
        try:
            return describe_task(self.task)
        except ConfigError:
            return TaskDescription()

    def row_scores(self, rows: Sequence[Row]) -> dict[str, "RowScore"]:
        """Scores of predictions, by bare name, as the task computes them."""
        scores: dict[str, RowScore] = resolve_name(self.description.row_scores)(rows)
        return scores

    @cached_property
    def test_row_scores(self) -> dict[str, "RowScore"]:
        """Scores of the test predictions, by bare name; empty without predictions."""
        return self.row_scores(self.predictions)

    @property
    def best(self) -> Mapping[str, Any]:
        """Step, monitored score and its value at the best checkpoint; empty without one."""
        best = self.manifest.get("best")
        return best if isinstance(best, Mapping) else {}

    @property
    def monitor(self) -> str:
        """The monitored score; empty where none is recorded."""
        return str(self.best.get("monitor") or "")

    @property
    def lower_is_better(self) -> bool:
        """Whether the monitored score is better when it is lower."""
        modes = (self.best.get("mode"), self.config.get("mode"), metric_direction(self.monitor))
        return next((mode for mode in modes if mode in ("min", "max")), "min") == "min"


def read_run_results(root: Path) -> RunResults:
    """The results of a run; a file that cannot be read becomes a sentence in `read_faults`."""
    folder, missing = RunDirectory(root), list[str]()

    def read(what: str, path: Path, load: Callable[[], T], empty: T, expected_type: type, *, needed: bool = True) -> T:
        try:
            value = load()
        except (OSError, TuneLabError, *SHAPE_FAULTS) as fault:
            if path.exists():
                missing.append(
                    translate(
                        "{name} cannot be read ({fault}), so this report lacks {what}",
                        name=path.name,
                        fault=short_fault(fault),
                        what=what,
                    )
                )
            elif needed:
                missing.append(translate("{name} is missing, so this report lacks {what}", name=path.name, what=what))
            return empty
        return value if isinstance(value, expected_type) else empty

    base, doctor = folder.base_predictions, folder.doctor_findings
    nothing: dict[str, Any] = {}
    manifest: dict[str, Any] = read(
        translate("settings, versions and how it ended"), folder.manifest, folder.read_manifest, nothing, dict
    )
    lines: list[Row] = read(
        translate("worst errors and calibration"), folder.predictions, folder.read_predictions, [], list
    )
    return RunResults(
        root,
        manifest,
        read(translate("final scores"), folder.metrics, folder.read_scores, nothing, dict),
        read("curves", folder.curves, folder.read_curves, [], list),
        valid_rows(lines),
        valid_rows(
            read(translate("answers before training"), base, lambda: read_json_lines(base), [], list, needed=False)
        ),
        read("tables", folder.score_tables, folder.read_score_tables, nothing, dict, needed=False),
        read(translate("what the data holds"), folder.data_report, folder.read_data_report, nothing, dict),
        read(
            translate("the doctor's findings"),
            doctor,
            lambda: read_stored_json(doctor),
            nothing,
            dict,
            needed=False,
        ),
        tuple(missing),
    )


def valid_rows(values: Sequence[Any]) -> list[Row]:
    """The rows that are JSON objects with the index of their record."""
    return [row for row in values if isinstance(row, dict) and isinstance(row.get("row"), int)]


def short_fault(fault: BaseException) -> str:
    """The first line of an error, cut where it repeats much of a file."""
    return first_line(fault)[:MAX_FAULT_LENGTH]
