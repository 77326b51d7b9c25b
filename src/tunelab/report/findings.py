"""The section on the doctor's findings, from `doctor.json`.  Pure."""

from collections.abc import Mapping
from typing import Any

from tunelab.report.blocks import Section, Verdicts, Words
from tunelab.report.run_facts import RunFacts
from tunelab.report.words import counted


def findings(run: RunFacts) -> list[Section]:
    """The section; none where no doctor watched the run."""
    if not run.doctor:
        return []
    entries = run.doctor.get("findings")
    lines = [finding(entry) for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []
    if not lines:
        looked = run.doctor.get("looked_for")
        many = f": {counted(len(looked), 'ailment')} looked for" if isinstance(looked, list) else ""
        lines = [Words(f"The doctor watched this run and found nothing amiss{many}.", "good")]
    return [Section("Doctor", [Verdicts(lines)], "What was found while the run trained, and what to try.")]


def finding(entry: Mapping[str, Any]) -> Words:
    """One finding as a sentence: its name, what is seen, what to try."""
    name, says, attempt = (str(entry.get(key) or "").strip() for key in ("verdict", "says", "attempt"))
    told = f"{name}: {says}" if name and says else name or says
    return Words(f"{told.rstrip('.')}. {attempt}".strip(), "warn")
