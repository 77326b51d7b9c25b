"""The section on the doctor's findings: `doctor.json`, in whatever detail it holds.  Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from tunelab.report.blocks import Section, Tone, Verdicts, Words
from tunelab.report.run_facts import RunFacts

TONES: dict[str, Tone] = {
    "ok": "good", "good": "good", "healthy": "good", "info": "plain", "note": "plain",
    "warn": "warn", "warning": "warn", "suspect": "warn", "look": "warn",
    "error": "bad", "fault": "bad", "bad": "bad", "critical": "bad", "fatal": "bad",
}  # fmt: skip
LISTS = ("findings", "verdicts", "symptoms", "events")
SAYS = ("message", "text", "sentence", "words", "reason", "verdict")
HELPS = ("advice", "try", "remedy", "fix", "what_to_try")


def findings(run: RunFacts) -> list[Section]:
    """The section; none where no doctor watched the run."""
    if not run.doctor:
        return []
    entries: list[Any] = next((run.doctor[name] for name in LISTS if isinstance(run.doctor.get(name), list)), [])
    lines = [line for entry in entries if (line := finding(entry))]
    if not lines:
        lines = [Words("The doctor watched this run and found nothing amiss.", "good")]
    return [Section("Doctor", [Verdicts(lines)], "What was found while the run trained.")]


def finding(entry: Any) -> Words | None:
    """One finding as a sentence."""
    if isinstance(entry, str):
        return Words(entry, "warn")
    if not isinstance(entry, Mapping):
        return None
    says = next((str(entry[name]) for name in SAYS if entry.get(name)), "")
    name = str(entry.get("name") or entry.get("kind") or entry.get("check") or "")
    step = f" (step {entry['step']})" if entry.get("step") is not None else ""
    helps = next((told(entry[key]) for key in HELPS if entry.get(key)), "")
    tone = TONES.get(str(entry.get("severity") or entry.get("level") or entry.get("tone") or "warn").lower(), "warn")
    text = f"{name}{step}: {says}" if name and says else f"{says or name}{step}"
    return Words(f"{text.rstrip('.')}. {helps}".strip(), tone) if says or name else None


def told(value: Any) -> str:
    """Advice as one text."""
    return "; ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
