"""Which report the given paths ask for."""

from collections.abc import Sequence
from pathlib import Path

from tunelab.report.blocks import Document
from tunelab.report.run_facts import read_run
from tunelab.report.run_report import run_report


def document_of(paths: Sequence[Path]) -> Document:
    """The report on one run or study, or the comparison of several."""
    return run_report(read_run(paths[0]))
