"""`tunelab report`: one page on a run, a study or a comparison."""

import argparse
from pathlib import Path

from tunelab.language.translation import message, translate

EPILOG = message("""
One path gives the report on that run or study; several compare them.  report.html is one file that loads nothing, for a
browser, a phone and print; report.md holds the same as text, and each table is a CSV file beside them.
""")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `tunelab report`."""
    parser.epilog = translate(EPILOG)
    parser.add_argument("paths", nargs="+", metavar="PATH", help=translate("folder of a run or of a search"))
    parser.add_argument(
        "--output", metavar="DIR", help=translate("where the report goes (PATH/report; outputs/report for several)")
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the report and print its path."""
    from tunelab.config.stored_files import shape_faults_explained
    from tunelab.errors import ConfigError
    from tunelab.report.compose import compose_report
    from tunelab.report.render import write_report
    from tunelab.report.run_reader import check_report_paths
    from tunelab.runs import console

    paths = [Path(path) for path in arguments.paths]
    check_report_paths(paths)
    default = paths[0] / "report" if len(paths) == 1 else Path("outputs") / "report"
    target = Path(arguments.output) if arguments.output else default
    if target.exists() and not target.is_dir():
        raise ConfigError(
            translate("--output={target} is a file; a report is several files, so name a folder", target=target)
        )
    with shape_faults_explained(translate("a file of {names}", names=" or ".join(map(str, paths)))):
        document = compose_report(paths)
    console.show_paths({translate(name): path for name, path in write_report(document, target).items()})
    return 0
