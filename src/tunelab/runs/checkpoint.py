"""Checkpoints on disk: written whole or not at all, verified when read, copied from a parent run."""

import hashlib
import os
import shutil
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from typing_extensions import override

from tunelab.errors import ConfigError
from tunelab.runs.atomic_files import PARTIAL_SUFFIX, write_atomically
from tunelab.runs.run_dir import RunDirectory


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, syncs, then replaces it; reads plain types only, after verifying every byte."""

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, partial(torch.save, checkpoint))

    @override
    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path), map_location)


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint of plain types.

    Raises:
        ConfigError: If the file is missing, cut short, has a flipped bit or holds anything but plain types.
    """
    if not path.is_file():
        raise ConfigError(f"no checkpoint at {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():  # torch stores a checksum per tensor but never compares it
                raise ConfigError(f"{path} is damaged: the checksum of '{damaged}' does not match its content")
        checkpoint: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
    except (zipfile.BadZipFile, EOFError, RuntimeError, zipfile.LargeZipFile) as fault:
        raise ConfigError(f"{path} is not a whole checkpoint ({fault}); it may have been cut short") from fault
    except Exception as fault:
        if type(fault).__name__ != "UnpicklingError":
            raise
        raise ConfigError(f"{path} holds more than plain tensors and values, so it is not loaded: {fault}") from fault
    return checkpoint


def weights_sha256(state: Mapping[str, Any]) -> str:
    """One sha256 over names, types, shapes and bytes of weights: equal if, and only if, they are bit for bit."""
    whole = hashlib.sha256()
    for name in sorted(state):
        weight: torch.Tensor = state[name].detach().cpu().contiguous()
        whole.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        whole.update(weight.reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()


def copy_parent_checkpoints(parent: Path, folder: RunDirectory) -> None:
    """Give a run the newest and the best checkpoint of another, unless it has its own already.

    Args:
        parent: Run folder of the other.
        folder: Of this run.

    Raises:
        ConfigError: If the other has no checkpoint to go on from.
    """
    source = RunDirectory(parent)
    if not folder.last.exists() and not source.last.exists():
        raise ConfigError(f"trial.parent={parent} has no checkpoint to go on from; only a search sets trial.*")
    for old, new in (
        (source.best, folder.best),
        (source.last, folder.last),
    ):  # `last` comes last: its being there tells
        if old.exists() and not new.exists():
            copy_checkpoint(old, new)


def copy_checkpoint(old: Path, new: Path) -> None:
    """Copy a checkpoint, whole or not at all; on one disk it takes no space: nobody changes a checkpoint."""
    part = new.with_name(f".{new.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    part.unlink(missing_ok=True)
    try:
        with suppress(OSError):  # another disk, or one that knows no links
            os.link(old, part)
        if not part.exists():
            shutil.copyfile(old, part)
        os.replace(part, new)
    finally:
        part.unlink(missing_ok=True)
