"""The outcome of a trial, read from the files it left: an exit status alone proves nothing."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OUT_OF_MEMORY_TEXTS = ("out of memory", "outofmemory", "cannot allocate memory", "bad_alloc")
DISK_FULL_TEXTS = ("disk is full", "no space left on device", "disk quota exceeded")
TRIAL_LOG = "trial.log"  # what a trial printed
SIGKILL_STATUS = -9
STOPPED_STATUSES = (143, 130, -15, -2)  # exit statuses of a training that was asked to leave
MISSING_SCORE = "no score"  # it ran to its end, and what the search asks for is none of its scores
NEVER_STARTED = "never started"  # the engine died between asking and starting: nothing was tried
RESUMABLE_FAILURES = (
    "killed",
    "preempted",
    "disk",
)  # failures that say nothing of the settings: such a trial can go on


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended.

    Attributes:
        state: `complete`, `pruned` or `failed`.
        values: One number for each objective; empty unless complete.
        kind: Of a failure: `diverged`, `memory`, `killed`, `preempted`, `disk`, `timeout`, `config`, `no score`,
            `no result`, `error`.
        reason: In words; empty where nothing went wrong.
        scores: Every final score by flat name.
        seconds: Time of the training, of all its sessions.
    """

    state: str
    values: tuple[float, ...] = ()
    kind: str = ""
    reason: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def read_outcome(folder: Path, status: int, objectives: Sequence[str], *, timed_out: bool = False) -> TrialOutcome:
    """The outcome of a trial whose process has ended.

    Args:
        folder: The run folder of the trial.
        status: Exit status of its process; negative for a signal.
        objectives: Names of the scores to read; `monitor` stands for the one that the run followed.
        timed_out: Whether it was ended for taking too long.
    """
    card = read_json_object(folder / "run.json")
    scores = {
        name: value
        for name, value in read_json_object(folder / "metrics.json").items()
        if isinstance(value, int | float)
    }
    seconds = float(card.get("seconds") or 0.0)
    scores["train/time"] = seconds
    for name, peak in (("train/memory_mb", "process_mb"), ("train/gpu_peak_mb", "gpu_mb")):
        if isinstance(held := (card.get("memory") or {}).get(peak), int | float):
            scores[name] = float(held)
    scores |= {f"model/{name}": n for name, n in (card.get("model") or {}).items() if isinstance(n, int)}
    how, reason = str(card.get("status", "")), str(card.get("reason") or "")
    if timed_out:
        return TrialOutcome("failed", (), "timeout", "it took longer than search.trial_timeout", scores, seconds)
    if how == "pruned":
        return TrialOutcome("pruned", (), "", reason, scores, seconds)
    if how == "diverged":
        return TrialOutcome("failed", (), "diverged", reason, scores, seconds)
    # a signal may come when all is written and the process is on its way out
    if how in ("finished", "early-stopped") and status in (0, SIGKILL_STATUS, *STOPPED_STATUSES):
        if (unscored := missing_scores(scores, [name for name in objectives if name != "monitor"])) is not None:
            return unscored
        values = tuple(objective_value(name, card, scores) for name in objectives)
        if all(math.isfinite(value) for value in values):
            return TrialOutcome("complete", values, "", reason if how == "early-stopped" else "", scores, seconds)
        lost = ", ".join(name for name, value in zip(objectives, values, strict=True) if not math.isfinite(value))
        return TrialOutcome("failed", (), "no result", f"it left no finite number for {lost}", scores, seconds)
    told = reason or last_log_lines(folder / TRIAL_LOG)
    if how == "pre-empted" or (status in STOPPED_STATUSES and how in ("", "running")):
        return TrialOutcome("failed", (), "preempted", told or "it was asked to leave", scores, seconds)
    for kind, words in (("memory", OUT_OF_MEMORY_TEXTS), ("disk", DISK_FULL_TEXTS)):
        if any(word in told.lower() for word in words):
            return TrialOutcome("failed", (), kind, told, scores, seconds)
    if status == SIGKILL_STATUS:
        why = "it was killed (SIGKILL), by hand or by the system because memory ran out"
        return TrialOutcome("failed", (), "killed", why, scores, seconds)
    if status == 0:
        why = "its process ended with status 0 and left no result"
        return TrialOutcome("failed", (), "no result", why, scores, seconds)
    return TrialOutcome(
        "failed", (), "config" if status == 2 else "error", told or f"exit status {status}", scores, seconds
    )


def require_scores(ended: TrialOutcome, names: Iterable[str]) -> TrialOutcome:
    """The same outcome, or the failure that it is where a complete trial lacks a score that limits are set for."""
    return (missing_scores(ended.scores, names) if ended.state == "complete" else None) or ended


def missing_scores(scores: Mapping[str, float], names: Iterable[str]) -> TrialOutcome | None:
    """The failure of a trial that left none of some scores; None where all are there."""
    lost = [name for name in names if name not in scores]
    if not lost:
        return None
    why = f"left no {', '.join(lost)}; there are {', '.join(sorted(scores))}"
    return TrialOutcome("failed", (), MISSING_SCORE, why, scores, scores.get("train/time", 0.0))


def implied_exit_status(folder: Path) -> int:
    """The exit status of a trial that nobody saw leave: its card tells; one that says `running` was cut off."""
    how = read_json_object(folder / "run.json").get("status", "running")
    return 0 if how in ("finished", "early-stopped") else SIGKILL_STATUS if how == "running" else 1


def objective_value(name: str, card: Mapping[str, Any], scores: Mapping[str, float]) -> float:
    """The number of one objective; nan where the trial left none."""
    found = (card.get("best") or {}).get("value") if name == "monitor" else scores.get(name)
    return float(found) if isinstance(found, int | float) else math.nan


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file; empty where it is missing or torn."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


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
