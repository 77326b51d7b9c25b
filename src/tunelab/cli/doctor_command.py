"""`tunelab doctor`: what is wrong with a run, in words."""

import argparse

EPILOG = """
Works on a run that is still training, on one that is over, and on one that failed.  Each verdict, its figure and its
threshold stand in docs/doctor.md.  Exit status 0 whatever is found; --strict makes it 3 where something is.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare arguments."""
    parser.epilog = EPILOG
    parser.add_argument("run", metavar="RUN", help="folder of a run")
    parser.add_argument("--strict", action="store_true", help="exit status 3 where something is found")


def run(arguments: argparse.Namespace) -> int:
    """Examine; prints what is seen, the figure behind it and what to try."""
    from pathlib import Path

    from tunelab.analysis.doctor import format_findings
    from tunelab.runs import console
    from tunelab.runs.run_dir import RunDirectory
    from tunelab.training.run_diagnosis import diagnose_run

    folder = RunDirectory.open(Path(arguments.run))
    found = diagnose_run(folder, write=folder.read_manifest().get("status") != "running")  # else the run writes its own
    console.show_lines("doctor", format_findings(found))
    return 3 if found and arguments.strict else 0
