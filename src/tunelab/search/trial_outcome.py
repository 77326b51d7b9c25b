"""The outcome of a trial, read from the files of its run directory and its exit status."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tunelab.config.stored_files import UnreadableFileError
from tunelab.language.translation import messages
from tunelab.runs.atomic_files import open_unlinked
from tunelab.runs.run_dir import RunDirectory
from tunelab.runs.run_status import COMPLETE_STATUSES, PREEMPTED
from tunelab.runs.stop_signals import STOPPED_STATUSES
from tunelab.runs.stored_json import read_stored_json

OUT_OF_MEMORY_TEXTS = ("out of memory", "outofmemory", "cannot allocate memory", "bad_alloc")
DISK_FULL_TEXTS = ("disk is full", "no space left on device", "disk quota exceeded", "ulimit -f")
TRIAL_LOG = "trial.log"  # output of a trial
SIGKILL_STATUS = -9
MISSING_SCORE = "no score"  # it finished without a score that is an objective or constraint
NEVER_STARTED = "never started"  # the engine died between suggesting and starting it
KINDS = messages(  # of failures
    "diverged", "memory", "killed", "preempted", "disk", "timeout", "config", "no score", "no result", "error"
)
RESUMABLE_FAILURES = ("killed", "preempted", "disk")  # not the settings' fault: such a trial can be resumed


@dataclass(frozen=True)
class TrialOutcome:
    """The outcome of a trial.

    Attributes:
        state: `complete`, `pruned` or `failed`.
        values: One number for each objective; empty unless complete.
        failure_kind: `diverged`, `memory`, `killed`, `preempted`, `disk`, `timeout`, `config`, `no score`,
            `no result`, `error`.
        reason: Reason of the failure, or of early stopping and pruning; else empty.
        scores: Every final score by flat name.
        seconds: Training time, over all sessions.
    """

    state: str
    values: tuple[float, ...] = ()
    failure_kind: str = ""
    reason: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def read_outcome(folder: Path, status: int, objectives: Sequence[str], *, timed_out: bool = False) -> TrialOutcome:
    """The outcome of a trial whose process has ended.

    Args:
        folder: The run folder of the trial.
        status: Exit status of its process; negative for a signal.
        objectives: Names of the scores to read; `monitor` is the monitored score of the run.
        timed_out: Whether it was stopped by `search.trial_timeout`.
    """
    run = RunDirectory(folder)
    manifest = read_json_object(run.manifest)
    scores = {name: value for name, value in read_json_object(run.metrics).items() if isinstance(value, int | float)}
    seconds = float(manifest.get("seconds") or 0.0)
    scores["train/time"] = seconds
    for name, peak in (("train/memory_mb", "process_mb"), ("train/gpu_peak_mb", "gpu_mb")):
        if isinstance(megabytes := (manifest.get("memory") or {}).get(peak), int | float):
            scores[name] = float(megabytes)
    scores |= {f"model/{name}": n for name, n in (manifest.get("model") or {}).items() if isinstance(n, int)}
    run_status, reason = str(manifest.get("status", "")), str(manifest.get("reason") or "")
    if timed_out:
        return TrialOutcome("failed", (), "timeout", "it took longer than search.trial_timeout", scores, seconds)
    if run_status == "pruned":
        return TrialOutcome("pruned", (), "", reason, scores, seconds)
    if run_status == "diverged":
        return TrialOutcome("failed", (), "diverged", reason, scores, seconds)
    # a signal may arrive when all files are written and the process is exiting
    if run_status in COMPLETE_STATUSES and status in (0, SIGKILL_STATUS, *STOPPED_STATUSES):
        if (failure := missing_scores(scores, [name for name in objectives if name != "monitor"])) is not None:
            return failure
        values = tuple(objective_value(name, manifest, scores) for name in objectives)
        if all(math.isfinite(value) for value in values):
            return TrialOutcome(
                "complete", values, "", reason if run_status == "early-stopped" else "", scores, seconds
            )
        missing = ", ".join(name for name, value in zip(objectives, values, strict=True) if not math.isfinite(value))
        return TrialOutcome("failed", (), "no result", f"it left no finite number for {missing}", scores, seconds)
    message = reason or last_log_lines(folder / TRIAL_LOG)
    if run_status == PREEMPTED or (status in STOPPED_STATUSES and run_status in ("", "running")):
        return TrialOutcome("failed", (), "preempted", message or "it was stopped by a signal", scores, seconds)
    for kind, texts in (("memory", OUT_OF_MEMORY_TEXTS), ("disk", DISK_FULL_TEXTS)):
        if any(text in message.lower() for text in texts):
            return TrialOutcome("failed", (), kind, message, scores, seconds)
    if status == SIGKILL_STATUS:
        why = "it was killed (SIGKILL), by hand or by the system because memory ran out"
        return TrialOutcome("failed", (), "killed", why, scores, seconds)
    if status == 0:
        why = "its process ended with status 0 and left no result"
        return TrialOutcome("failed", (), "no result", why, scores, seconds)
    return TrialOutcome(
        "failed", (), "config" if status == 2 else "error", message or f"exit status {status}", scores, seconds
    )


def require_scores(outcome: TrialOutcome, names: Iterable[str]) -> TrialOutcome:
    """The same outcome, or a failure where a complete trial lacks one of these scores."""
    return (missing_scores(outcome.scores, names) if outcome.state == "complete" else None) or outcome


def missing_scores(scores: Mapping[str, float], names: Iterable[str]) -> TrialOutcome | None:
    """The failure of a trial without some of these scores; None where all are there."""
    missing = [name for name in names if name not in scores]
    if not missing:
        return None
    why = f"left no {', '.join(missing)}; there are {', '.join(sorted(scores))}"
    return TrialOutcome("failed", (), MISSING_SCORE, why, scores, scores.get("train/time", 0.0))


def implied_exit_status(folder: Path) -> int:
    """The exit status of a process that is no child of ours, by its manifest; one still `running` was killed."""
    run_status = read_json_object(RunDirectory(folder).manifest).get("status", "running")
    return 0 if run_status in COMPLETE_STATUSES else SIGKILL_STATUS if run_status == "running" else 1


def objective_value(name: str, manifest: Mapping[str, Any], scores: Mapping[str, float]) -> float:
    """The value of one objective; NaN where the trial has none."""
    value = (manifest.get("best") or {}).get("value") if name == "monitor" else scores.get(name)
    return float(value) if isinstance(value, int | float) else math.nan


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file; empty where the file is missing or incomplete."""
    try:
        return read_stored_json(path)
    except (OSError, UnreadableFileError):
        return {}


def open_log(folder: Path) -> IO[bytes]:
    """The log of a trial, to write at its end."""
    return os.fdopen(open_unlinked(folder / TRIAL_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab")


def last_log_lines(path: Path, lines: int = 3) -> str:
    """The last lines that a trial printed."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 4000))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "; ".join([line.strip() for line in text.splitlines() if line.strip()][-lines:])
