"""The report on a study, written when the search is over: what mattered, and what to try next."""

from pathlib import Path

from tunelab.report.study_facts import read_study
from tunelab.report.study_report import study_report
from tunelab.report.writing import write_report
from tunelab.search.folder import StudyFolder


def write_what_it_taught(folder: StudyFolder) -> Path:
    """Write `report/` into the study's folder; `tunelab report STUDY` writes the same anew.

    Returns:
        The page.
    """
    return write_report(study_report(read_study(folder.root)), folder.root / "report")["report"]
