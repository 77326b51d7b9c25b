"""The report on one run.  Pure: facts in, a document out."""

from collections.abc import Callable, Sequence

from tunelab.report.answers import answers
from tunelab.report.blocks import Document, Section
from tunelab.report.calibrated import calibration
from tunelab.report.classes import classes
from tunelab.report.curves import curves
from tunelab.report.data_section import data
from tunelab.report.findings import findings
from tunelab.report.guarded import guarded
from tunelab.report.numbers import numbers
from tunelab.report.overview import overview
from tunelab.report.provenance import provenance
from tunelab.report.run_facts import RunFacts
from tunelab.report.worst import worst

PARTS: Sequence[tuple[str, Callable[[RunFacts], Section | list[Section]]]] = (
    ("In short", overview),
    ("Curves", curves),
    ("Classes", classes),
    ("Answers", answers),
    ("Predicted numbers", numbers),
    ("Worst errors", worst),
    ("Calibration", calibration),
    ("Doctor", findings),
    ("Data", data),
    ("How it came to be", provenance),
)


def run_report(run: RunFacts) -> Document:
    """The document."""
    told = [str(run.config.get("name") or ""), run.task, str((run.card.get("model") or {}).get("path") or "")]
    subtitle = ", ".join([*filter(None, told), str(run.root)])
    sections = [section for title, part in PARTS for section in guarded(title, part, run)]
    return Document(f"Run {run.name}", subtitle, sections)
