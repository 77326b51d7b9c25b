"""The manifest of a run (run.json): all that is needed to reproduce a number later, and no secrets."""

import json
import os
import platform
import shlex
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunelab.runs.entry_script import own_script, script_record
from tunelab.runs.environment import code_revision, code_sha256, hardware_info, installed_packages, numeric_switches
from tunelab.runs.redact import REDACTED, is_secret_name, redact
from tunelab.runs.run_status import RUN_STATUSES

SESSION_SETTINGS = (
    "max_epochs",
    "max_steps",
    "micro_tokens",
    "memory",
    "callbacks",
    "trainer",
    "eval",
)  # what may change when a run goes on

Manifest = dict[str, Any]


def start_manifest(
    *,
    command: list[str],
    overrides: list[str],
    config: Mapping[str, Any],
    seed: int,
    data: Mapping[str, Any],
    model: Mapping[str, Any],
    earlier: Mapping[str, Any] | None = None,
    resumed_at: int | None = None,
) -> Manifest:
    """The manifest of a run that starts.

    Args:
        command: The words of the command line.
        overrides: The overrides of the command line.
        config: The resolved config, plain values.
        seed: The seed of all random numbers.
        data: Files of each split with their sha256.
        model: Location of the base model and sha256 of its weights.
        earlier: The manifest of the run that is resumed; its id and its sessions are kept.
        resumed_at: Optimizer step of the checkpoint that it resumes from; None for a fresh start.

    Returns:
        Plain values, secrets redacted.  `status` is "running"; `finish_manifest` fills in the values that are None.
    """
    started = datetime.now(UTC)
    manifest = {
        "id": earlier["id"] if earlier else f"{started:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}",
        "status": "running",
        "reason": None,
        "started": started.isoformat(timespec="seconds"),
        "ended": None,
        "seconds": None,
        "energy": None,
        "memory": None,
        "resumed_at": resumed_at,
        "best": None,
        "scores": None,
        "results": None,
        "command": shlex.join(_without_secrets(command)),
        "overrides": _without_secrets(overrides),
        "directory": os.getcwd(),
        "script": script_record(own_script()),
        "config": config,
        "seeds": {"global": seed},
        "data": data,
        "model": model,
        "git": code_revision(),
        "code_sha256": code_sha256(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "hardware": hardware_info(),
        "numerics": numeric_switches(),
        "packages": installed_packages(),
        "sessions": [*earlier.get("sessions", []), _session_entry(earlier)] if earlier else [],
    }
    return dict(redact(manifest))


def read_template_date(folder: str | Path) -> str | None:
    """The day that a run's chat template writes, as its manifest has it; None where it writes none."""
    try:
        data = json.loads((Path(folder) / "run.json").read_text(encoding="utf-8")).get("data")
    except (OSError, ValueError, AttributeError):
        return None  # whoever needs the manifest says what is wrong with it
    day = data.get("template_date") if isinstance(data, dict) else None
    return day if isinstance(day, str) else None


def finish_manifest(
    manifest: Mapping[str, Any],
    status: str,
    reason: str | None,
    seconds: float,
    best: Mapping[str, Any] | None,
    scores: Mapping[str, float],
    *,
    results: Mapping[str, str | None] | None = None,
    energy: Mapping[str, float | None] | None = None,
    memory: Mapping[str, float | None] | None = None,
) -> Manifest:
    """The manifest of a run that ends.

    Args:
        manifest: From `start_manifest`.
        status: One of `RUN_STATUSES`, except "running".
        reason: Why it ended; required unless it finished.
        seconds: Wall time of this process.
        best: Step, monitored score and value of the best checkpoint; None without one.
        scores: Every score by its flat name, `split/score`.
        results: sha256 of the best weights and of the predictions, to compare a reproduction with.
        energy: Joules of this session by kind of device; None where the machine has no counter.
        memory: Peak memory in megabytes over all sessions, from `measure_peak_memory`.

    Returns:
        A new manifest.  `seconds` and `energy` are those of all sessions; `scores` is nested, split by split.

    Raises:
        ValueError: If the status is unknown, or the reason is missing.
    """
    if status not in RUN_STATUSES[1:]:
        raise ValueError(f"{status!r} is no way for a run to end; one of {', '.join(RUN_STATUSES[1:])}")
    if status != "finished" and not reason:
        raise ValueError(f"a run that is {status} needs a reason, or nobody can learn from its manifest")
    by_split: dict[str, dict[str, float]] = {}
    for name, value in scores.items():
        split, _, score = name.partition("/")
        by_split.setdefault(split, {})[score] = value
    ending = {
        "status": status,
        "reason": reason,
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": seconds + sum(session["seconds"] or 0.0 for session in manifest["sessions"]),
        "energy": _total_joules(manifest, energy or {}),
        "memory": dict(memory or {}),
        "best": best,
        "scores": by_split,
        "results": dict(results or {}),
    }
    return dict(redact({**manifest, **ending}))


def _total_joules(manifest: Mapping[str, Any], now: Mapping[str, float | None]) -> dict[str, float | None]:
    """The energy of all sessions by kind of device; None where a session has no reading."""
    earlier = [session.get("energy") or {} for session in manifest["sessions"]]
    totals: dict[str, float | None] = {}
    for name, joules in now.items():
        parts = [*(session.get(name) for session in earlier), joules]
        readings = [part for part in parts if part is not None]
        totals[name] = sum(readings) if len(readings) == len(parts) else None
    return totals


def _without_secrets(words: Sequence[str]) -> list[str]:
    """The words of a command line, with the values of settings whose name is that of a secret redacted."""
    pairs = [word.partition("=") for word in words]
    return [name + equals + (REDACTED if is_secret_name(name) and value else value) for name, equals, value in pairs]


def _session_entry(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of an earlier session: when it ran, how it ended, on which code; its own seconds and joules."""
    before = sum(session["seconds"] or 0.0 for session in manifest.get("sessions", []))
    seconds = None if manifest["seconds"] is None else manifest["seconds"] - before
    git = manifest.get("git") or {}
    names = ("started", "ended", "status", "reason", "command", "overrides", "resumed_at")
    kept = {name: manifest.get(name) for name in names}
    kept["settings"] = {name: manifest["config"].get(name) for name in SESSION_SETTINGS}
    sessions = [session.get("energy") or {} for session in manifest.get("sessions", [])]
    energy = {
        name: None if total is None else total - sum(session[name] for session in sessions)
        for name, total in (manifest.get("energy") or {}).items()
    }
    return {
        **kept,
        "seconds": seconds,
        "energy": energy,
        "memory": manifest.get("memory"),
        "commit": git.get("commit"),
        "diff_sha256": git.get("diff_sha256"),
    }
