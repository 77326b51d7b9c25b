"""The script of one's own that trainings are started by: a train.py that was changed, or another that calls `main`."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.runs.file_digests import sha256_file

# Of train.py as it is shipped, which does no more than `python -m tunelab.cli.launch`.
TEMPLATE_SHA256 = "bd756aa4c1659ca305d581788be683b5b369a550dfcc3185dd3c2fdcdbe34c9b"
REPLAY_FLAG = "--replay"  # tells a script, as its first word, to train one stage of a recorded run
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
    """What a study or run records of its script: name and SHA-256.  Never its place: none may say what is executed."""
    return None if script is None else {"name": script.name, "sha256": sha256_file(script)}


def script_word(record: object = None) -> str:
    """The script of one's own that started this process, or that a study or run records, quoted; empty without one."""
    if (own := own_script()) is not None:
        return shlex.quote(sys.argv[0] if Path(sys.argv[0]).is_file() else str(own))
    return shlex.quote(recorded_name(record)) if record else ""


def script_option(record: object = None) -> str:
    """`--script FILE` after a space, for a command that trains again what a script of one's own started; else empty."""
    word = script_word(record)
    return f" --script {word}" if word else ""


def recorded_name(record: object) -> str:
    """The name of the script in the record of a study or run: never a place, as that may come from somebody else."""
    return Path(str(record.get("name"))).name if isinstance(record, Mapping) else "train.py"


def check_script(script: Path | None, record: object) -> None:
    """Check that the script that started a run, or the trials of a search, is named to train it again.

    Raises:
        ConfigError: If none is named and there was one, or it is no file: the trainings would be others.
    """
    if script is None and record:
        raise ConfigError(
            translate(
                "{name}, a script of its user's own, started what is to be trained again, and without it the trainings "
                "would be others; name the file, as no record may say what is executed: --script {name}",
                name=recorded_name(record),
            )
        )
    if script is not None and not script.is_file():
        raise ConfigError(translate("--script {file}: there is no such file", file=script))


def recorded_sha256(record: object) -> str:
    """The SHA-256 of the script in a record; without one, that of the template's train.py."""
    return str(record.get("sha256")) if isinstance(record, Mapping) else TEMPLATE_SHA256


def train_command(script: Path | None) -> list[str]:
    """The command that starts a training: by a script of one's own, or as `tunelab train` does; words follow it."""
    return [sys.executable, str(script)] if script is not None else [sys.executable, "-P", "-m", "tunelab.cli.launch"]
