"""TuneLab from Python: `train`, `search` and `load`, and what they return.

A keyword is a setting of the command line: `lr=1e-4` is `lr=1e-4`, `data={"max_tokens": 256}` is `data.max_tokens=256`.
Mistakes are raised as ConfigError or DataError.  torch is imported when something is trained or loaded, not before.
"""

import hashlib
import json
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from tunelab.config.override_text import override_words
from tunelab.errors import ConfigError, TuneLabError
from tunelab.language.translation import translate
from tunelab.runs.atomic_files import read_json_lines, to_plain, write_text_if_changed
from tunelab.runs.run_dir import RunDirectory
from tunelab.runs.study_folder import StudyFolder

if TYPE_CHECKING:  # they take seconds to import
    from lightning import Callback
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tunelab.training.load_run import TrainedRun

SPLITS = ("train", "validation", "test")
DATA_FOLDER = Path("outputs") / "data"  # where records that are handed over in memory are kept, named by their content


def train(*overrides: str, callbacks: object = None, **settings: object) -> "Run":
    """Train a model, evaluate it and export it, as `tunelab train` does; returns the finished run.

    Args:
        overrides: Words as on the command line, such as `"optimizer=sgd"` or `"data.max_tokens=256"`.
        callbacks: Lightning callbacks to add for this run (they are no part of its record), or a setting.
        settings: Further settings: numbers, texts, paths, lists, or a dict for the keys of a block.  `data` may also
            be the training rows, and `data={"train": rows, "validation": rows}` the rows of each split: a list of
            dicts, a pandas or polars frame, or a `datasets.Dataset`.  Rows are written to outputs/data, by their
            content, so that the run can be repeated.

    Raises:
        ConfigError, DataError: If the settings or the data are at fault; nothing was trained.
        Diverged: If the loss or a weight became NaN or Inf.
        KeyboardInterrupt: After Ctrl-C or SIGTERM; `train(resume=FOLDER)` goes on from the checkpoint in the folder.

    Example:
        run = train("optimizer=sgd", data="classification", lr=1e-4)
    """
    from tunelab.cli.compose_config import compose_run

    extra: list[Callback] = []
    if callbacks is not None:
        extra, setting = separate_callbacks(callbacks)
        settings = {**settings, **({} if setting is None else {"callbacks": setting})}
    composed = compose_run([*overrides, *override_words(keep_rows(settings))])
    if composed.settings.find is not None or composed.settings.cv.folds is not None:
        raise ConfigError(
            translate(
                "train() returns one run; find= and cv.folds= give none. Use `tunelab train` for "
                "them, on the command line"
            )
        )
    from tunelab.training.processes import shared_folder
    from tunelab.training.run import fine_tune

    with restored_signal_handlers():
        fine_tune(composed.settings, composed.folder, overrides=composed.overrides, callbacks=extra)
    return Run(shared_folder(composed.folder).absolute())


def search(*overrides: str, trials: int | None = None, search: str | None = None, **settings: object) -> "Study":
    """Search for good settings, as `tunelab train -m` does; returns the finished study.

    The trials are processes of their own, so nothing that lives in this process alone, such as a callback object,
    reaches them.

    Args:
        overrides: Words as on the command line, such as `"lr=interval(1e-5,1e-3)"`.
        trials: Number of trials (`search.trials`).
        search: How: `"random"`, `"bayes"`, `"evolution"`, `"grid"`, ... as `search=NAME`.
        settings: As for `train`; a list is a choice to search over, a text such as `"interval(1e-5,1e-3)"` a range.

    Raises:
        ConfigError, DataError: If the settings or the data are at fault.
        TuneLabError: If no trial has a result.
        KeyboardInterrupt: After Ctrl-C or SIGTERM; the same call with `hydra={"sweep": {"dir": FOLDER}}` goes on.

    Example:
        study = search("search/space=lr_only", search="bayes", trials=20)
    """
    from tunelab.cli.compose_config import compose_search, compose_settings
    from tunelab.search.run_search import run_search
    from tunelab.training.run import fine_tune

    def train_here(words: Sequence[str], folder: Path) -> None:
        fine_tune(compose_settings(words), folder, overrides=words)

    chosen = {"search": search, "search.trials": trials}
    words = override_words({name: value for name, value in chosen.items() if value is not None})
    config, task_words = compose_search([*overrides, *words, *override_words(keep_rows(settings), choices=True)])
    with restored_signal_handlers():
        run_search(config, task_words, train_here)
    return Study(Path(str(config.hydra.sweep.dir)).absolute())


def load(path: str | Path) -> "Run | Study":
    """The run or the study in a folder.

    Raises:
        ConfigError: If the folder holds neither.
    """
    root = Path(path).expanduser().absolute()
    if StudyFolder(root).summary.is_file():
        return Study(root)
    if not (RunDirectory(root).exists() and RunDirectory(root).config.is_file()):
        from tunelab.training.load_run import find_run

        find_run(root)  # says what stands near it
    return Run(root)


@dataclass(frozen=True)
class Run:
    """A training that has ended, and its model.

    Attributes:
        path: The run folder.
    """

    path: Path

    @property
    def manifest(self) -> dict[str, Any]:
        """What run.json holds: command, versions, hashes, best step, how it ended."""
        return RunDirectory(self.path).read_manifest()

    @property
    def status(self) -> str:
        """How the run ended: finished, early-stopped, preempted, diverged, failed ..."""
        return str(self.manifest.get("status"))

    @property
    def scores(self) -> dict[str, float]:
        """Every final score by name, such as `test/accuracy`; what metrics.json holds."""
        return RunDirectory(self.path).read_scores()

    @property
    def curves(self) -> list[dict[str, float]]:
        """The rows of metrics.csv: what was logged at each step."""
        return RunDirectory(self.path).read_curves()

    @cached_property
    def _trained(self) -> "TrainedRun":
        from tunelab.training.load_run import load_run

        return load_run(self.path)

    @property
    def model(self) -> "PreTrainedModel":
        """The best model, in evaluation mode, on the device that it was trained on where that is here."""
        return self._trained.model

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer that the model was trained with."""
        return self._trained.tokenizer

    def predict(self, rows: object, *, max_new_tokens: int | None = None) -> list[dict[str, Any]]:
        """The rows with a `prediction` each, as `tunelab predict` writes them for a file.

        Args:
            rows: A list of dicts, a frame, a `datasets.Dataset`, or the path of a file of records.
            max_new_tokens: Longest answer; that of the run by default.

        Raises:
            ConfigError: If the model writes no answers and `max_new_tokens` is set.
            DataError: If the file cannot be read.
        """
        from tunelab.data.columns import without_columns
        from tunelab.generation.prediction import predict_window, predict_windows

        records = self._read(rows)
        trained = self._trained
        task = trained.task
        if max_new_tokens is not None:
            if not hasattr(task, "max_new_tokens"):
                raise ConfigError(
                    translate("max_new_tokens: a {name} run gives labels or numbers, leave it out", name=task.name)
                )
            if max_new_tokens < 1:
                raise ConfigError(
                    translate(
                        "max_new_tokens={max_new_tokens} is out of range; it must be at least 1",
                        max_new_tokens=max_new_tokens,
                    )
                )
        usual = getattr(task, "max_new_tokens", None)
        try:
            if max_new_tokens is not None:
                setattr(task, "max_new_tokens", max_new_tokens)  # noqa: B010  # only tasks that write have it
            batch_tokens = trained.settings.micro_tokens
            questions = without_columns(records, trained.settings.data.ignored)
            windows = predict_windows(lambda some: predict_window(trained, some, batch_tokens), questions)
            predictions = [prediction for window in windows for prediction in window]
        finally:
            if max_new_tokens is not None:
                setattr(task, "max_new_tokens", usual)  # noqa: B010
        pairs = zip(records, predictions, strict=True)
        return [cast(dict[str, Any], to_plain({**row, **prediction})) for row, prediction in pairs]

    def _read(self, rows: object) -> list[dict[str, Any]]:
        if isinstance(rows, str | Path):
            from tunelab.data.readers import read_records

            data = self._trained.settings.data
            return [dict(row) for row in read_records(str(rows), encoding=data.encoding, quoting=data.quoting).rows]
        records = as_records(rows)
        if records is None:
            raise ConfigError(
                translate(
                    "predict() got a {kind}; give a list of dicts, a pandas frame or the path of a file",
                    kind=type(rows).__name__,
                )
            )
        return records

    def report(self) -> Path:
        """Write the report on the run, as `tunelab report` does; returns the path of report.html."""
        return write_report_page(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, status={self.status!r})"


@dataclass(frozen=True)
class Trial:
    """One trial of a study.

    Attributes:
        number: From 0; 0 is the default configuration unless the search left it out.
        state: `complete`, `pruned` or `failed`.
        params: Value of each searched setting.
        overrides: The same as words for the command line.
        value: Of the objective; None where it has none, or several.
        values: Of every objective.
        scores: Every validation score, by name.
        path: Its run folder.
    """

    number: int
    state: str
    params: Mapping[str, Any]
    overrides: tuple[str, ...]
    value: float | None
    values: tuple[float, ...]
    scores: Mapping[str, float]
    path: Path


@dataclass(frozen=True)
class Study:
    """A search, finished or under way.

    Attributes:
        path: The study folder.
    """

    path: Path

    @property
    def trials(self) -> list[Trial]:
        """The trials that have ended, by number."""
        file = StudyFolder(self.path).trials
        return [read_trial(line, self.path) for line in read_json_lines(file)] if file.is_file() else []

    @property
    def best(self) -> Trial:
        """The best trial; with several objectives the one of the front that is best in the first.

        Raises:
            TuneLabError: If no trial has a result yet.
        """
        number = self.summary.get("best_trial")
        if number is None:
            raise TuneLabError(translate("{path} has no trial with a result yet", path=self.path))
        return next(trial for trial in self.trials if trial.number == number)

    @property
    def summary(self) -> dict[str, Any]:
        """What study.json holds: best trial, counts by state, sampler, the score of the best on the test split."""
        return dict(json.loads(StudyFolder(self.path).summary.read_text(encoding="utf-8")))

    def report(self) -> Path:
        """Write the report on the study, as `tunelab report` does; returns the path of report.html."""
        return write_report_page(self.path)

    def __repr__(self) -> str:
        return f"Study({str(self.path)!r}, trials={len(self.trials)})"


def read_trial(line: Mapping[str, Any], study: Path) -> Trial:
    """A trial from its line of trials.jsonl."""
    return Trial(
        number=line["number"],
        state=line["state"],
        params=line["params"],
        overrides=tuple(line["overrides"]),
        value=line["value"],
        values=tuple(line["values"]),
        scores=line["scores"],
        path=study / str(line["number"]),
    )


def write_report_page(path: Path) -> Path:
    """Write the report on a run or a study beside it; returns the path of its page."""
    from tunelab.report.compose import compose_report
    from tunelab.report.render import write_report

    write_report(compose_report([path]), path / "report")
    return path / "report" / "report.html"


@runtime_checkable
class _PandasFrame(Protocol):
    def to_json(self, *, orient: str, lines: bool, force_ascii: bool, date_format: str) -> str: ...


@runtime_checkable
class _PolarsFrame(Protocol):
    def to_dicts(self) -> list[dict[str, Any]]: ...


@runtime_checkable
class _HubDataset(Protocol):
    def to_list(self) -> list[dict[str, Any]]: ...


def as_records(rows: object) -> list[dict[str, Any]] | None:
    """Rows as a list of dicts, whatever holds them; None where the value holds no rows."""
    if isinstance(rows, _PolarsFrame):
        return rows.to_dicts()
    if isinstance(rows, _PandasFrame) and hasattr(rows, "columns"):  # it writes NaN as null and dates as text
        text = rows.to_json(orient="records", lines=True, force_ascii=False, date_format="iso")
        return [json.loads(line) for line in text.splitlines()]
    if isinstance(rows, _HubDataset) and hasattr(rows, "column_names"):
        return rows.to_list()
    if not isinstance(rows, Sequence) or isinstance(rows, str | bytes) or not rows:
        return None
    return [dict(row) for row in rows] if all(isinstance(row, Mapping) for row in rows) else None


def keep_rows(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings with rows of data replaced by the path of a file that holds them.

    Raises:
        ConfigError: If `data` is rows of no split, or there are no rows.
    """
    kept = dict(settings)
    data = settings.get("data")
    if (records := as_records(data)) is not None:
        kept["data.train"] = write_rows(records)
        del kept["data"]
    elif isinstance(data, Mapping):
        kept["data"] = {
            name: write_rows(rows) if name in SPLITS and (rows := as_records(value)) is not None else value
            for name, value in data.items()
        }
    for split in SPLITS:
        key = f"data.{split}"
        if key in kept and (rows := as_records(kept[key])) is not None:
            kept[key] = write_rows(rows)
    return kept


def write_rows(rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as a file of JSON lines that is named by its content; returns its path.

    Raises:
        ConfigError: If a value cannot be written as JSON.
    """
    try:
        text = "".join(json.dumps(to_plain(row), ensure_ascii=False) + "\n" for row in rows)
    except (TypeError, ValueError) as fault:
        raise ConfigError(
            translate("the rows cannot be kept as JSON: {fault}; use texts, numbers, lists and dicts", fault=fault)
        ) from fault
    path = DATA_FOLDER.absolute() / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_if_changed(path, text)
    return path


def separate_callbacks(value: object) -> tuple[list["Callback"], object]:
    """Callback objects of a value, and what remains of it as a setting; None where nothing does.

    Raises:
        ConfigError: If it mixes the two.
    """
    from lightning import Callback

    listed = list(value) if isinstance(value, list | tuple) else [value]
    objects = [one for one in listed if isinstance(one, Callback)]
    if objects and len(objects) < len(listed):
        raise ConfigError(
            translate("callbacks holds objects and settings; give the settings as words: train('callbacks=...')")
        )
    return objects, None if objects else value


@contextmanager
def restored_signal_handlers() -> Iterator[None]:
    """Within it a training or a search handles signals; afterwards the caller's handlers are back.

    Raises:
        KeyboardInterrupt: Where it left because of a signal.
    """
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread alone
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except SystemExit as leaving:
        if leaving.code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
            raise KeyboardInterrupt from leaving
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
