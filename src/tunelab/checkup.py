"""What the doctor reads of a run folder, and what it leaves there."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tunelab import console
from tunelab.atomic import write_json
from tunelab.doctor.evidence import Evidence, Finding
from tunelab.doctor.examine import CHECKS, examine, in_words
from tunelab.record import RunFolder


def evidence(folder: RunFolder) -> Evidence:
    """What a run has written by now; what is not there yet is left out."""
    card: dict[str, Any] = folder.read_card() if folder.card.is_file() else {}
    settings = card.get("config") or {}
    monitor = settings.get("monitor", "auto")
    best = card.get("best") or {}
    return Evidence(
        curves=folder.read_curves() if folder.curves.is_file() else [],
        settings=settings,
        data=folder.read_report() if folder.report.is_file() else {},
        status=str(card.get("status") or "running"),
        reason=str(card.get("reason") or ""),
        monitor=monitor if monitor != "auto" else str(best.get("monitor") or "val/loss"),
    )


def check_up(folder: RunFolder, *, write: bool) -> list[Finding]:
    """Every finding on a run; with `write` they are left in `doctor.json` too."""
    run = evidence(folder)
    found = examine(run)
    if write:
        write_findings(folder, run, found)
    return found


def last_look(folder: RunFolder) -> None:
    """Say what is wrong with a run that has ended, however it did, and leave it in `doctor.json`."""
    if folder.curves.is_file() or folder.read_card().get("status") == "diverged":
        console.show_lines("doctor", in_words(check_up(folder, write=True)))


def write_findings(folder: RunFolder, run: Evidence, found: Sequence[Finding]) -> None:
    """Leave `doctor.json`: the findings, what was looked for, and up to which step."""
    steps = [int(row["step"]) for row in run.curves]
    facts = {"status": run.status, "last_step": max(steps, default=None), "points": len(steps), "looked_for": [*CHECKS]}
    write_json(folder.doctor, {**facts, "findings": [asdict(finding) for finding in found]})
