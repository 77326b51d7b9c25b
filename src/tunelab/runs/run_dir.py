"""The run directory: the one place that knows its files."""

import csv
import math
import os
import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tunelab.config.quoting import path_word
from tunelab.config.stored_files import read_stored_text, shape_faults_explained
from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.runs.atomic_files import (
    PARTIAL_SUFFIX,
    Row,
    join_rank_shares,
    link_fault,
    read_json_lines,
    remove_tree,
    sync_folder,
    to_plain,
    write_json,
    write_json_lines,
    write_text,
)
from tunelab.runs.locks import FolderLock
from tunelab.runs.redact import redact
from tunelab.runs.stored_json import Shape, read_stored_json

RUN_FILES = (  # all that a run writes beside its checkpoints and the folders of trackers
    *("config.yaml", "run.json", "metrics.json", "metrics.csv", "predictions.jsonl", "base_predictions.jsonl"),
    *("export", "data_report.json", "task.json", "looks.jsonl", "scores.json", "doctor.json", "error.log"),
)
NUMBER_OR_NONE = (int, float, type(None))
OBJECT_OR_NONE = (dict, type(None))
MANIFEST_SHAPE: Shape = {  # what a manifest holds, as far as it holds it: those of older versions lack some
    **dict.fromkeys(("id", "status", "command", "directory", "started", "python", "platform"), (str,)),
    **dict.fromkeys(("reason", "ended"), (str, type(None))),
    **dict.fromkeys(("seconds", "resumed_at"), NUMBER_OR_NONE),
    **dict.fromkeys(("energy", "memory", "best", "scores", "results", "git", "script"), OBJECT_OR_NONE),
    **dict.fromkeys(("config", "data", "model", "seeds", "hardware", "numerics", "packages"), (dict,)),
    **dict.fromkeys(("overrides", "sessions"), (list,)),
}
RANK_SHARE = re.compile(r"\.predictions\.rank\d+\.jsonl\.\d+\.part")


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run, read and written whole.

    `RunDirectory.create` and `RunDirectory.open(..., write=True)` hold the folder's lock until `close`; a `with` block
    closes it.  Other ranks of the same run use `RunDirectory(root)`, which holds no lock and may write its part of the
    predictions.
    """

    root: Path

    @property
    def config(self) -> Path:
        """The resolved config, YAML."""
        return self.root / "config.yaml"

    @property
    def manifest(self) -> Path:
        """The manifest of the run: its provenance, and how it ended."""
        return self.root / "run.json"

    @property
    def metrics(self) -> Path:
        """Final scores of the best checkpoint: one flat JSON object."""
        return self.root / "metrics.json"

    @property
    def curves(self) -> Path:
        """Scores over steps, CSV; empty where a step has no such score."""
        return self.root / "metrics.csv"

    @property
    def predictions(self) -> Path:
        """Predictions for the test split, one JSON object per line."""
        return self.root / "predictions.jsonl"

    @property
    def base_predictions(self) -> Path:
        """Predictions of the model before training, where `eval.base` is set."""
        return self.root / "base_predictions.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.root / "checkpoints"

    @property
    def best(self) -> Path:
        """Checkpoint with the best monitored score."""
        return self.checkpoints / "best.ckpt"

    @property
    def last(self) -> Path:
        """Checkpoint to resume from."""
        return self.checkpoints / "last.ckpt"

    @property
    def previous(self) -> Path:
        """The checkpoint before the last, to fall back to where that one is damaged."""
        return self.checkpoints / "previous.ckpt"

    @property
    def ensemble(self) -> Path:
        """The members of an ensemble and how they are combined; only an ensemble has it."""
        return self.root / "ensemble.json"

    @property
    def export(self) -> Path:
        """The best model, as plain transformers loads it."""
        return self.root / "export"

    @property
    def data_report(self) -> Path:
        """The summary of the data: counts, lengths, duplicates, dropped records."""
        return self.root / "data_report.json"

    @property
    def task_state(self) -> Path:
        """The state of the task from the training split: label names, target scale, chat template."""
        return self.root / "task.json"

    @property
    def evaluations_log(self) -> Path:
        """One line for each time that the run was evaluated on a file after training."""
        return self.root / "looks.jsonl"

    @property
    def score_tables(self) -> Path:
        """Scores too wide for a flat file: confusion matrix, per-class scores."""
        return self.root / "scores.json"

    @property
    def doctor_findings(self) -> Path:
        """Findings of the doctor."""
        return self.root / "doctor.json"

    @property
    def traceback(self) -> Path:
        """The traceback of an unexpected error that ended the run."""
        return self.root / "error.log"

    def rank_error(self, rank: int) -> Path:
        """The error of a process beside the main one: its reason, then its traceback."""
        return self.root / f"error.rank{rank}.log"

    @classmethod
    def create(cls, root: Path) -> Self:
        """The directory of a new run, made and locked.

        Raises:
            ConfigError: If the folder holds a run already, or another process is writing to it.
        """
        folder = cls(Path(root))
        folder._check_no_links()
        if not folder.exists() and not folder._lock.path.is_file() and (foreign := folder._files()):
            raise ConfigError(
                translate(
                    "{root} is no folder of a run and holds {names}, which a run would overwrite; "
                    "another hydra.run.dir leaves them alone",
                    root=root,
                    names=", ".join(file.name for file in foreign),
                )
            )
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
        dead = folder._lock.acquire()
        if folder.exists() and folder.read_manifest().get("model") != {}:  # {}: it ended before it had a model
            folder.close()
            raise ConfigError(
                translate(
                    "{root} holds a run already, which a new one would overwrite; {command} goes on with "
                    "it, another hydra.run.dir starts beside it",
                    root=root,
                    command=shlex.quote(path_word("resume", root)),
                )
            )
        folder._remove_leftovers(dead)
        return folder

    @classmethod
    def open(cls, root: Path, *, write: bool = False) -> Self:
        """The directory of an existing run; with `write` locked, so that the run can be resumed.

        Raises:
            ConfigError: If there is no run, or (with `write`) another process is writing to it.
        """
        folder = cls(Path(root))
        killed_early = write and folder.config.is_file()  # between its settings and its manifest
        if not folder.exists() and not killed_early:
            reason = (
                translate("the folder has no run.json")
                if folder.root.is_dir()
                else translate("there is no such folder")
            )
            raise ConfigError(
                translate(
                    "{root} is not a run: {reason}; give the folder a training printed as its run folder",
                    root=root,
                    reason=reason,
                )
            )
        if write:
            folder._check_no_links()
            folder.checkpoints.mkdir(exist_ok=True)
            folder._remove_leftovers(folder._lock.acquire())
        return folder

    def exists(self) -> bool:
        """Whether the folder holds a run."""
        return self.manifest.is_file()

    def close(self) -> None:
        """Release the lock, if this process holds it."""
        self._lock.release()

    def discard(self) -> None:
        """Delete the folder of a run that was refused before it trained; one with more in it stays as it is."""
        refusal = {self.config, self.manifest, self._lock.path}
        left = set(self.root.iterdir()) - refusal if self.root.is_dir() else set()
        if left - {self.checkpoints} or any(self.checkpoints.glob("*")) or self.is_held():
            return
        for path in refusal:
            path.unlink(missing_ok=True)
        for folder in (self.checkpoints, self.root):
            with suppress(OSError):
                folder.rmdir()

    def is_held(self) -> bool:
        """Whether a live process writes here, as far as this machine can see."""
        return self._lock.is_held()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        self.close()

    def write_config(self, text: str) -> None:
        """Write the resolved config, secrets of the environment redacted; those under secret names already are."""
        write_text(self.config, str(redact(text)))

    def write_traceback(self, text: str) -> None:
        """Write the traceback of an error, secrets redacted."""
        write_text(self.traceback, text)

    def write_rank_error(self, rank: int, reason: str, text: str) -> None:
        """Write the reason, its first line, and the traceback of a process beside the main one, secrets redacted."""
        write_text(self.rank_error(rank), f"{reason.splitlines()[0]}\n\n{text}")

    def read_rank_errors(self) -> dict[int, str]:
        """The reason of each process that left one, the first to fail first."""
        files = sorted(self.root.glob("error.rank*.log"), key=lambda file: file.stat().st_mtime_ns)
        return {int(file.name[10:-4]): file.read_text(encoding="utf-8").partition("\n")[0] for file in files}

    def remove_rank_errors(self) -> None:
        """Remove the errors of other processes, of an earlier session or the same as that of this one."""
        for file in self.root.glob("error.rank*.log"):
            file.unlink(missing_ok=True)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, secrets redacted."""
        write_json(self.manifest, redact(to_plain(manifest)))

    def read_manifest(self) -> dict[str, Any]:
        """The manifest of the run."""
        return _read_json(self.manifest, MANIFEST_SHAPE)

    def write_scores(self, flat: Mapping[str, float]) -> None:
        """Write the final scores by name (`test/loss`); a number that is not finite becomes null."""
        write_json(self.metrics, flat)

    def read_scores(self) -> dict[str, float]:
        """The final scores by name; null is read as nan."""
        with shape_faults_explained(self.metrics):
            flat = _read_json(self.metrics).items()
            return {name: math.nan if value is None else float(value) for name, value in flat}

    def write_data_report(self, report: Mapping[str, Any]) -> None:
        """Write the summary of the data."""
        write_json(self.data_report, report)

    def read_data_report(self) -> dict[str, Any]:
        """The summary of the data."""
        return _read_json(self.data_report)

    def write_score_tables(self, tables: Mapping[str, Any]) -> None:
        """Write confusion matrix and per-class scores, by split."""
        write_json(self.score_tables, tables)

    def read_score_tables(self) -> dict[str, Any]:
        """Confusion matrix and per-class scores, by split."""
        return _read_json(self.score_tables)

    def read_curves(self) -> list[dict[str, float]]:
        """One row per logged step, without the scores it lacks; a line still being written is left out."""
        text = read_stored_text(self.curves)
        whole = text[: text.rfind("\n") + 1]
        with shape_faults_explained(self.curves):
            rows = list(csv.DictReader(whole.splitlines(), strict=True))
            return [{name: float(cell) for name, cell in row.items() if cell} for row in rows]

    def write_predictions(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write one JSON object per line."""
        write_json_lines(self.predictions, rows)

    def read_predictions(self) -> list[Row]:
        """The predictions, in the order of the file."""
        return read_json_lines(self.predictions)

    def write_predictions_part(self, rank: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the share of one rank; each row carries `row`, the index of its record in the split."""
        write_json_lines(self.root / f"predictions.rank{rank}.jsonl", rows)

    def merge_predictions(self, expected: int | Collection[int], /) -> list[Row]:
        """Join the shares of all ranks into `predictions.jsonl`, ordered by row, and drop the shares.

        Args:
            expected: The rows there must be: a number counted from 0, or the indices where some were dropped.

        Raises:
            TuneLabError: If a row is missing, is duplicated, or belongs to no record: the scores would be wrong.
        """
        parts = sorted(self.root.glob("predictions.rank*.jsonl"))
        rows = join_rank_shares([read_json_lines(part) for part in parts], expected)
        self.write_predictions(rows)
        for part in parts:
            part.unlink()
        return rows

    @property
    def _lock(self) -> FolderLock:
        return FolderLock(self.root / "run.lock")

    def _files(self) -> list[Path]:
        """What a run writes, as far as it is there: links too; an empty folder of checkpoints does not count."""
        own = [self.root / name for name in RUN_FILES]
        checkpoints = list(self.checkpoints.glob("*")) if self.checkpoints.is_dir() else []
        return [path for path in [*own, *checkpoints] if os.path.lexists(path)]

    def _check_no_links(self) -> None:
        """Check that nothing which a run writes is a link.

        Raises:
            ConfigError: Naming each: what it points to, perhaps outside the folder, would be overwritten.
        """
        links = [path for path in [self._lock.path, self.checkpoints, *self._files()] if path.is_symlink()]
        if links:
            raise ConfigError.listing([link_fault(path) for path in links])

    def _remove_leftovers(self, dead: int | None) -> None:
        """Delete the half-written files of a killed run; called under the lock, before any rank writes.

        Only what is named as ours and carries the number of the process that the lock recorded; the shares of other
        ranks have numbers of their own.

        Args:
            dead: Process id of the killed run; None where none was.
        """
        if self.exists() or dead is not None:
            for share in self.root.glob("predictions.rank*.jsonl"):
                share.unlink(missing_ok=True)
            self.remove_rank_errors()
        if dead is None:
            return
        names = {f".{name}.{dead}{PARTIAL_SUFFIX}" for name in RUN_FILES}
        for left in self.root.glob(f".*{PARTIAL_SUFFIX}"):
            if left.name in names or RANK_SHARE.fullmatch(left.name):
                remove_leftover(left)
        for left in self.checkpoints.glob(f".*.ckpt.{dead}{PARTIAL_SUFFIX}"):
            remove_leftover(left)
        sync_folder(self.root)


def remove_leftover(path: Path) -> None:
    """Remove a half-written file, or a half-written folder with what it holds; of a link only the link."""
    if path.is_dir():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)


def _read_json(path: Path, shape: Shape | None = None) -> dict[str, Any]:
    """The JSON object of a file of the run.

    Raises:
        ConfigError: If the run has no such file, or one that is damaged or of another shape.
    """
    try:
        return read_stored_json(path, shape=shape)
    except FileNotFoundError:
        raise ConfigError(
            translate(
                "{folder} has no {name}; the run did not get that far, resume it first",
                folder=path.parent,
                name=path.name,
            )
        ) from None
