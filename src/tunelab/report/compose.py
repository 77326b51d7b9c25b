"""The report for the given paths: one run, one study, or a comparison."""

from collections.abc import Sequence
from pathlib import Path

from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.report.document import Document
from tunelab.report.run_comparison import build_run_comparison, compare_with_best
from tunelab.report.run_reader import is_study_folder, read_run_results
from tunelab.report.run_report import build_run_report
from tunelab.report.study_reader import read_study_results, runs_as_study


def compose_report(paths: Sequence[Path]) -> Document:
    """The report on one run, a study or a set of runs, or the comparison of two runs or several studies.

    Raises:
        ConfigError: If runs and studies are mixed.
    """
    studies = [path for path in paths if is_study_folder(path)]
    if studies and len(studies) < len(paths):
        runs = [path for path in paths if path not in studies]
        raise ConfigError(
            translate(
                "{studies} is a study and {runs} is a run: the two are no pair. Compare runs with "
                "runs (the best of a study is {studies}/NUMBER, named in its study.json) or studies "
                "with studies",
                studies=studies[0],
                runs=runs[0],
            )
        )
    runs_read = [] if studies else [read_run_results(path) for path in paths]
    if len(runs_read) == 1:
        return build_run_report(runs_read[0])
    if len(runs_read) == 2:
        return build_run_comparison(*runs_read)
    # importance takes Optuna and pandas, which a report on a run does without
    from tunelab.report.study_comparison import build_study_comparison
    from tunelab.report.study_report import build_study_report

    if len(studies) == 1:
        return build_study_report(read_study_results(studies[0]))
    if studies:
        return build_study_comparison([read_study_results(path) for path in studies])
    study = runs_as_study(runs_read)
    return build_study_report(study, compare_with_best(runs_read, study.best.trial_numbers[0]) if study.best else ())
