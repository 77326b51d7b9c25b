"""The report on a search, or on several runs looked at as one.  Pure: facts in, a document out."""

from collections.abc import Callable, Sequence

from tunelab.report.all_at_once import all_at_once
from tunelab.report.blocks import Document, Section
from tunelab.report.checks import checks
from tunelab.report.cost import cost
from tunelab.report.guarded import guarded
from tunelab.report.importance_section import importance
from tunelab.report.mattered import Mattered, effects
from tunelab.report.next_steps import what_next
from tunelab.report.ranking import all_trials, history, overview, ranked
from tunelab.report.study_facts import StudyFacts
from tunelab.report.study_origin import origin

PARTS: Sequence[tuple[str, Callable[[Mattered], Section | list[Section]]]] = (
    ("In short", lambda found: overview(found.study)),
    ("What to run next", what_next),
    ("Ranked", lambda found: ranked(found.study)),
    ("History", lambda found: history(found.study)),
    ("Effect of each setting", effects),
    ("Importance", importance),
    ("All settings at once", all_at_once),
    ("Checks", checks),
    ("Time and cost", lambda found: cost(found.study)),
    ("Trials", lambda found: all_trials(found.study)),
    ("How it came to be", lambda found: origin(found.study)),
)


def study_report(study: StudyFacts, more: Sequence[Section] = ()) -> Document:
    """The document.

    Args:
        study: The search, or the set of runs.
        more: Further sections, before how it came to be.
    """
    found = Mattered(study)
    sections = [section for title, part in PARTS for section in guarded(title, part, found)]
    last = [section for section in sections if section.title == "How it came to be"]
    body = [section for section in sections if section not in last]
    kind = "Study" if study.study else "Set of runs"
    name = "/".join(study.root.absolute().parts[-2:])
    return Document(
        f"{kind} {name}",
        f"{study.score}, {'lower' if study.lower else 'higher'} is better, {study.root}",
        [*body, *more, *last],
    )
