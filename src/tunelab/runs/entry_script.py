"""The script of one's own that trainings are started by: a train.py that was changed, or another that calls `main`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunelab.runs.file_digests import sha256_file

# Of train.py as it is shipped, which does no more than `python -m tunelab.cli.launch`.
TEMPLATE_SHA256 = "bd756aa4c1659ca305d581788be683b5b369a550dfcc3185dd3c2fdcdbe34c9b"
SERVER_VARIABLE = "TUNELAB_FORK_SERVER"  # tells a script to become the process that trials are forked from

_script: list[Path] = []


def note_script(caller: Mapping[str, Any]) -> None:
    """Remember the script that calls `main` of `tunelab.cli.launch`, for the trainings that this process starts.

    Args:
        caller: The globals of the module that calls it; only the main script of this process counts.
    """
    file = caller.get("__file__")
    is_script = caller.get("__name__") == "__main__" and caller.get("__spec__") is None and isinstance(file, str)
    script = Path(file).absolute() if is_script and file is not None else None
    _script[:] = [script] if script is not None and script.is_file() and not is_template(script) else []


def own_script() -> Path | None:
    """The script that this process was started by; None where it is the template's train.py, or a command."""
    return _script[0] if _script else None


def is_template(script: Path) -> bool:
    """Whether a script is the template's train.py as it is shipped."""
    return sha256_file(script) == TEMPLATE_SHA256


def script_record(script: Path | None) -> dict[str, str] | None:
    """What a study records of its script: name and SHA-256.  Never its place: no file may say what is executed."""
    return None if script is None else {"name": script.name, "sha256": sha256_file(script)}


def train_command(script: Path | None) -> list[str]:
    """The command that starts a training: by a script of one's own, or as `tunelab train` does; words follow it."""
    return [sys.executable, str(script)] if script is not None else [sys.executable, "-P", "-m", "tunelab.cli.launch"]
