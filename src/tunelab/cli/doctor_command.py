"""`tunelab doctor`: the problems of a run, each with its evidence and what to try."""

import argparse

from tunelab.language.translation import message, translate

EPILOG = message("""
Works on a run that is still training, on one that is over, and on one that failed.  docs/doctor.md has the evidence
and the threshold of each verdict.  Exit status 0 in any case; --strict makes it 3 where there is a problem.
""")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `tunelab doctor`."""
    parser.epilog = translate(EPILOG)
    parser.add_argument("run", metavar="RUN", help=translate("folder of a run"))
    parser.add_argument("--strict", action="store_true", help=translate("exit status 3 where there is a problem"))


def run(arguments: argparse.Namespace) -> int:
    """Diagnose the run and print each problem, the figure behind it and what to try."""
    from pathlib import Path

    from tunelab.runs.run_dir import RunDirectory
    from tunelab.training.run_diagnosis import diagnose_run, say_findings

    folder = RunDirectory.open(Path(arguments.run))
    problems = diagnose_run(
        folder, write=folder.read_manifest().get("status") != "running"
    )  # else the run writes its own
    say_findings(translate("doctor"), problems)
    return 3 if problems and arguments.strict else 0
