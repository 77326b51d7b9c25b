"""A run that begins with the checkpoints of another: their copies in a folder of its own."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from tunelab.atomic import PARTIAL
from tunelab.errors import ConfigError
from tunelab.record import RunFolder


def inherit(parent: Path, folder: RunFolder) -> None:
    """Give a run the newest and the best checkpoint of another, unless it has its own already.

    Args:
        parent: Run folder of the other.
        folder: Of this run.

    Raises:
        ConfigError: If the other has no checkpoint to go on from.
    """
    source = RunFolder(parent)
    if not folder.last.exists() and not source.last.exists():
        raise ConfigError(f"trial.parent={parent} has no checkpoint to go on from; only a search sets trial.*")
    for old, new in (
        (source.best, folder.best),
        (source.last, folder.last),
    ):  # `last` comes last: its being there tells
        if old.exists() and not new.exists():
            copy(old, new)


def copy(old: Path, new: Path) -> None:
    """Copy a checkpoint, whole or not at all; on one disk it takes no space: nobody changes a checkpoint."""
    part = new.with_name(f".{new.name}.{os.getpid()}{PARTIAL}")
    part.unlink(missing_ok=True)
    try:
        with suppress(OSError):  # another disk, or one that knows no links
            os.link(old, part)
        if not part.exists():
            shutil.copyfile(old, part)
        os.replace(part, new)
    finally:
        part.unlink(missing_ok=True)
