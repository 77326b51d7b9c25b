"""The doctor on a run folder: signals read, findings printed and left in `doctor.json`."""

from collections.abc import Sequence
from typing import Any

from tunelab.analysis.doctor import DOCTOR_CHECKS, FATAL_CHECKS, run_doctor
from tunelab.analysis.run_signals import Finding, RunSignals
from tunelab.config.stored_files import shape_faults_explained
from tunelab.language.translation import labelled, translate
from tunelab.runs import console
from tunelab.runs.atomic_files import write_json
from tunelab.runs.run_dir import RunDirectory


def read_run_signals(folder: RunDirectory) -> RunSignals:
    """The curves, data report and manifest of a run, as far as they are written by now."""
    manifest: dict[str, Any] = folder.read_manifest() if folder.manifest.is_file() else {}
    settings = manifest.get("config") or {}
    monitor = settings.get("monitor", "auto")
    best = manifest.get("best") or {}
    return RunSignals(
        curves=folder.read_curves() if folder.curves.is_file() else [],
        settings=settings,
        data=folder.read_data_report() if folder.data_report.is_file() else {},
        status=str(manifest.get("status") or "running"),
        reason=str(manifest.get("reason") or ""),
        monitor=monitor if monitor != "auto" else str(best.get("monitor") or "val/loss"),
    )


def diagnose_run(folder: RunDirectory, *, write: bool) -> list[Finding]:
    """Every finding on a run; with `write` they are left in `doctor.json` too."""
    with shape_faults_explained(
        translate("{root}: what its run.json, data_report.json or metrics.csv holds", root=folder.root)
    ):
        run = read_run_signals(folder)
        findings = run_doctor(run)
    if write:
        write_findings(folder, run, findings)
    return findings


def diagnose_finished_run(folder: RunDirectory) -> None:
    """Say what is wrong with a run that has ended, however it did, and leave it in `doctor.json`."""
    if folder.curves.is_file() or folder.read_manifest().get("status") == "diverged":
        say_findings(translate("doctor"), diagnose_run(folder, write=True))


def say_findings(title: str, findings: Sequence[Finding]) -> None:
    """Print findings under a title, each with its remedy; one good line where there are none."""
    if not findings:
        console.say_marked("good", translate("{title}: no problem found", title=title))
    for finding in findings:
        mark = "problem" if finding.verdict in FATAL_CHECKS else "warning"
        remedy = translate("try: {remedy}", remedy=finding.remedy)
        console.say_marked(mark, labelled(title, labelled(finding.verdict, finding.message)) + f"\n{remedy}")


def write_findings(folder: RunDirectory, run: RunSignals, findings: Sequence[Finding]) -> None:
    """Leave `doctor.json`: the findings, what was looked for, and up to which step."""
    steps = [int(row["step"]) for row in run.curves]
    facts = {
        "status": run.status,
        "last_step": max(steps, default=None),
        "points": len(steps),
        "looked_for": [*DOCTOR_CHECKS],
    }
    write_json(folder.doctor_findings, {**facts, "findings": [finding.as_json() for finding in findings]})
