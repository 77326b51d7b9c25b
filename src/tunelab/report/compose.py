"""Which report the given paths ask for."""

from collections.abc import Sequence
from pathlib import Path

from tunelab.errors import ConfigError
from tunelab.report.blocks import Document
from tunelab.report.comparison import against_best, comparison
from tunelab.report.run_facts import read_run
from tunelab.report.run_report import run_report
from tunelab.report.set_facts import set_facts
from tunelab.report.sources import is_study
from tunelab.report.study_comparison import study_comparison
from tunelab.report.study_facts import read_study
from tunelab.report.study_report import study_report


def document_of(paths: Sequence[Path]) -> Document:
    """The report on one run or study, the comparison of two runs or several studies, or the report on a set of runs.

    Raises:
        ConfigError: If runs and studies are mixed.
    """
    studies = [path for path in paths if is_study(path)]
    if studies and len(studies) < len(paths):
        runs = [path for path in paths if path not in studies]
        raise ConfigError(
            f"{studies[0]} is a study and {runs[0]} is a run: the two are no pair. Compare runs with runs (the best of "
            f"a study is {studies[0]}/NUMBER, named in its study.json) or studies with studies"
        )
    if len(studies) == 1:
        return study_report(read_study(studies[0]))
    if studies:
        return study_comparison([read_study(path) for path in studies])
    runs_read = [read_run(path) for path in paths]
    if len(runs_read) == 1:
        return run_report(runs_read[0])
    if len(runs_read) == 2:
        return comparison(*runs_read)
    found = set_facts(runs_read)
    return study_report(found, against_best(runs_read, found.best.numbers[0]) if found.best else ())
