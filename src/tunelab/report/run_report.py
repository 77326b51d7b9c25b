"""The report on one run.  Pure: facts in, a document out."""

from collections.abc import Callable, Sequence

from tunelab.report.answers import answers
from tunelab.report.blocks import Document, Section, Words
from tunelab.report.calibrated import calibration
from tunelab.report.classes import classes
from tunelab.report.curves import curves
from tunelab.report.data_section import data
from tunelab.report.findings import findings
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
    sections = [section for title, part in PARTS for section in made(title, part, run)]
    return Document(f"Run {run.name}", subtitle, sections)


def made(title: str, part: Callable[[RunFacts], Section | list[Section]], run: RunFacts) -> list[Section]:
    """A part's sections; where a file holds something else than a run writes, the words for that."""
    try:
        found = part(run)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError) as fault:
        words = (
            f"This part cannot be told: a file of the run holds what it should not ({type(fault).__name__}: {fault})."
        )
        return [Section(title, [Words(words, "bad")])]
    return found if isinstance(found, list) else [found]
