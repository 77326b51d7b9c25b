"""Checkpoints on disk: written atomically, verified when read, copied from a parent run."""

import hashlib
import os
import re
import shutil
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh

from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.runs.atomic_files import partial_path, write_atomically
from tunelab.runs.run_dir import RunDirectory
from tunelab.runs.sharded_checkpoint import PARTS_KEY, parts_fault, parts_folder, read_parts


def write_checkpoint(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, partial(torch.save, checkpoint), stored_bytes(checkpoint))


class DamagedCheckpoint(ConfigError):
    """A checkpoint is cut short, has a flipped bit, or is gone."""


def read_checkpoint(
    path: Path,
    map_location: Any = "cpu",
    *,
    mapped: bool = False,
    values_only: bool = False,
    mesh: DeviceMesh | None = None,
    targets: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> dict[str, Any]:
    """The content of a checkpoint of plain types.

    Args:
        path: The file.
        map_location: Where its tensors go.
        mapped: Whether tensors stay in the file until they are used, so that they take no memory of their own.
        values_only: Whether numbers and texts are all that is needed; tensors of one in parts are then left out.
        mesh: Processes that share the tensors of one in parts, and all call this; None reads them whole.
        targets: Tensors that weights of these names in one in parts are read into.

    Raises:
        ConfigError: If it holds anything but plain types.
        DamagedCheckpoint: If the file is missing, cut short or has a flipped bit.
    """
    if not path.is_file():
        raise DamagedCheckpoint(translate("no checkpoint at {path}", path=path))
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():  # torch stores a checksum per tensor but never compares it
                raise DamagedCheckpoint(
                    translate(
                        "{path} is damaged: the checksum of '{damaged}' does not match its content",
                        path=path,
                        damaged=damaged,
                    )
                )
        checkpoint: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True, mmap=mapped)
    except (zipfile.BadZipFile, EOFError, RuntimeError, zipfile.LargeZipFile) as fault:
        raise DamagedCheckpoint(
            translate("{path} is not a whole checkpoint ({fault}); it may have been cut short", path=path, fault=fault)
        ) from fault
    except Exception as fault:
        if type(fault).__name__ != "UnpicklingError":
            raise
        raise ConfigError(
            translate(
                "{path} holds more than plain tensors and values{fault}; an object of that kind can "
                "run code when it is read, so the file is not loaded. Take one from a source that "
                "you trust, or train again",
                path=path,
                fault=refused_object(fault),
            )
        ) from fault
    if PARTS_KEY not in checkpoint:
        return checkpoint
    try:
        folder = parts_folder(checkpoint, path)
        fault_of_parts = parts_fault(checkpoint, folder)
        if fault_of_parts is None:
            return checkpoint if values_only else read_parts(checkpoint, folder, mesh, targets)
    except (TypeError, KeyError, ValueError, AttributeError) as fault:
        raise ConfigError(
            translate("{path} is no checkpoint in parts that a run has written: {fault}", path=path, fault=fault)
        ) from fault
    raise DamagedCheckpoint(translate("{path} is damaged: {fault_of_parts}", path=path, fault_of_parts=fault_of_parts))


def named_parts(path: Path) -> Path | None:
    """The folder with the tensors of a checkpoint file; None for one in one piece, or one that cannot be read."""
    with suppress(Exception):
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return parts_folder(checkpoint, path) if PARTS_KEY in checkpoint else None
    return None


def refused_object(fault: Exception) -> str:
    """What torch refused to read, as a bracket; without torch's advice to read it all the same."""
    name = re.search(r"GLOBAL ([\w.]+)", str(fault))
    return f" ({name[1]})" if name else ""


def stored_bytes(value: Any, seen: set[int] | None = None) -> int:
    """Bytes of the tensors in a checkpoint, at least; memory that several share is stored once."""
    seen = set() if seen is None else seen
    if isinstance(value, torch.Tensor):
        storage = value.untyped_storage()
        known = storage.data_ptr() in seen
        seen.add(storage.data_ptr())
        return 0 if known else storage.nbytes()
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return sum(stored_bytes(part, seen) for part in parts)


def keep_previous(last: Path, previous: Path) -> None:
    """Keep the last checkpoint as the previous one before a new last is written, unless that would fill the disk."""
    if not last.is_file():
        return
    if shutil.disk_usage(last.parent).free > 2.1 * last.stat().st_size:
        copy_checkpoint(last, previous)
    else:
        previous.unlink(missing_ok=True)


def restore_previous(folder: RunDirectory, reason: str) -> str:
    """Put the checkpoint before the last in its place, where the last is damaged; returns what was done, a sentence.

    The damaged file stays beside it, as `last.ckpt.damaged`.

    Args:
        folder: Of the run, held by this process.
        reason: What is wrong with the last checkpoint.

    Raises:
        DamagedCheckpoint: If there is no earlier one that is whole.
    """
    try:
        steps = int(read_checkpoint(folder.previous, values_only=True)["global_step"])
    except ConfigError as fault:
        raise DamagedCheckpoint(
            translate(
                "{reason}; and there is no earlier one to fall back to ({fault}). Take them from a "
                "backup, or remove both: resume then starts from the beginning",
                reason=reason,
                fault=fault,
            )
        ) from fault
    if os.path.lexists(folder.last):
        os.replace(folder.last, folder.last.with_name(f"{folder.last.name}.damaged"))
    copy_checkpoint(folder.previous, folder.last)
    return translate(
        "{reason}; the run goes on from the checkpoint before it, of step {steps}", reason=reason, steps=steps
    )


def weights_sha256(state: Mapping[str, Any]) -> str:
    """One sha256 over names, types, shapes and bytes of weights: equal if, and only if, all bits are."""
    digest = hashlib.sha256()
    for name in sorted(state):
        whole = state[name].detach()
        if hasattr(whole, "full_tensor"):  # spread over processes, which all call this
            whole = whole.full_tensor()
        weight: torch.Tensor = whole.cpu().contiguous()
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(weight.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def copy_parent_checkpoints(parent: Path, folder: RunDirectory) -> None:
    """Copy the last and the best checkpoint of a parent run, unless the run has its own.

    Args:
        parent: Run directory of the parent.
        folder: The run.

    Raises:
        ConfigError: If the parent has no checkpoint.
    """
    source = RunDirectory(parent)
    if not folder.last.exists() and not source.last.exists():
        raise ConfigError(
            translate(
                "trial.parent={parent} has no checkpoint to go on from; only a search sets trial.*", parent=parent
            )
        )
    for old, new in ((source.best, folder.best), (source.last, folder.last)):  # `last` marks the copy as complete
        if old.exists() and not new.exists():
            copy_checkpoint(old, new)


def copy_checkpoint(old: Path, new: Path) -> None:
    """Copy a checkpoint atomically; on one disk as a hard link, as no file of a checkpoint is ever changed."""
    if new.parent != old.parent and (folder := named_parts(old)) is not None:
        for file in folder.iterdir():
            (new.parent / folder.name).mkdir(parents=True, exist_ok=True)
            if not (new.parent / folder.name / file.name).exists():
                copy_checkpoint(file, new.parent / folder.name / file.name)
    part = partial_path(new)
    part.unlink(missing_ok=True)
    try:
        with suppress(OSError):  # another disk, or one without hard links
            os.link(old, part)
        if not part.exists():
            shutil.copyfile(old, part)
        os.replace(part, new)
    finally:
        part.unlink(missing_ok=True)
