"""Checkpoints in parts: a small file with the plain values, and a folder in which each process wrote its own tensors.

The folder is PyTorch's distributed checkpoint (`torch.distributed.checkpoint`) in safetensors files, which hold nothing
that could run, and any number of processes reads it back.  The file names the folder and the checksum of each file in
it, so it is whole or it is not there, as a checkpoint in one piece.
"""

import secrets
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, distributed
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, empty

from tunelab.runs.atomic_files import write_error

PARTS_KEY = "tunelab_parts"  # of the file: the folder, and size and checksum of each file in it
TENSOR_KEY = "tunelab_tensor"  # of what stands for a tensor: its name in the folder, its shape and type
FOLDER_SUFFIX = ".parts"


def take_out_tensors(tree: Any, tensors: dict[str, DTensor], name: str = "") -> Any:
    """A nest of dicts and lists in which a description stands for every spread tensor; those are added to `tensors`."""
    if isinstance(tree, DTensor):
        tensors[name] = cast(DTensor, tree.detach())
        return {TENSOR_KEY: name, "shape": list(tree.shape), "dtype": str(tree.dtype).removeprefix("torch.")}
    if isinstance(tree, Mapping):
        return {key: take_out_tensors(value, tensors, f"{name}/{key}") for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(take_out_tensors(value, tensors, f"{name}/{place}") for place, value in enumerate(tree))
    return tree


def write_parts(checkpoint: Mapping[str, Any], path: Path, write_file: Callable[[dict[str, Any]], None]) -> None:
    """Write a checkpoint in parts; all processes must call it.

    Args:
        checkpoint: With spread tensors in it.
        path: The file.
        write_file: Writes the file of plain values; called by the main process alone, once the parts are there.
    """
    rank, tensors = distributed.get_rank(), dict[str, DTensor]()
    values = take_out_tensors(checkpoint, tensors)
    second_names = shared_names(tensors)
    tensors = {name: tensor for name, tensor in tensors.items() if name not in second_names}
    shared = [f"{path.stem}-{checkpoint.get('global_step', 0):07d}-{secrets.token_hex(4)}{FOLDER_SUFFIX}"]
    distributed.broadcast_object_list(shared)
    folder = path.parent / shared[0]
    if rank == 0:
        folder.mkdir(parents=True)
    distributed.barrier()
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        with fault_of_first_process():
            state_dict_saver.save(tensors, storage_writer=writer)
    except OSError as fault:
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        error = write_error(folder, fault, f"{size:,}")
        if rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
        raise error from fault
    own = {file.name: file_checksum(file) for file in sorted(folder.glob(f"shard-{rank + 1:05d}-*"))}
    gathered: list[dict[str, tuple[int, int]]] = [{} for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(gathered, own)
    if rank == 0:
        files = {name: list(entry) for part in gathered for name, entry in part.items()}
        write_file({**values, PARTS_KEY: {"folder": folder.name, "files": files, "tied": second_names}})
    distributed.barrier()


@contextmanager
def fault_of_first_process() -> Iterator[None]:
    """Raise the fault of the first process that had one, in place of PyTorch's sum of all, which no handler knows."""
    try:
        yield
    except CheckpointException as faults:
        raise next(iter(faults.failures.values()))[0] from None


def shared_names(tensors: Mapping[str, DTensor]) -> dict[str, str]:
    """Further names of tensors that have several (tied weights), each with the first; all processes must call it.

    A process whose part of a tensor is empty cannot tell, so all of them are asked.
    """
    first: dict[tuple[int, torch.Size], str] = {}
    own = {}
    for name, tensor in tensors.items():
        part = tensor.to_local()
        if part.numel() and (known := first.setdefault((part.data_ptr(), tensor.shape), name)) != name:
            own[name] = known
    gathered: list[dict[str, str]] = [{} for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(gathered, own)
    return {name: known for part in gathered for name, known in part.items()}


def file_checksum(file: Path) -> tuple[int, int]:
    """Size in bytes and CRC-32 of a file."""
    checksum, size = 0, 0
    with file.open("rb") as stream:
        while block := stream.read(2**24):
            checksum, size = zlib.crc32(block, checksum), size + len(block)
    return size, checksum


def parts_folder(checkpoint: Mapping[str, Any], path: Path) -> Path:
    """The folder with the tensors of a checkpoint in parts, beside its file.

    Raises:
        ValueError: If it names none that could be its own.
    """
    parts = checkpoint[PARTS_KEY]
    name = parts.get("folder") if isinstance(parts, Mapping) else None
    if not isinstance(name, str) or Path(name).name != name or not name.endswith(FOLDER_SUFFIX):
        raise ValueError(f"it names {name!r} as the folder of its tensors")
    return path.parent / name


def parts_fault(checkpoint: Mapping[str, Any], folder: Path) -> str | None:
    """What is damaged or gone of the folder of a checkpoint; None where nothing is."""
    for name, entry in checkpoint[PARTS_KEY]["files"].items():
        if not (folder / Path(name).name).is_file():
            return f"{folder.name}/{name} is gone"
        if list(file_checksum(folder / Path(name).name)) != list(entry):
            return f"the checksum of {folder.name}/{name} does not match its content"
    return None


def read_parts(
    checkpoint: dict[str, Any], folder: Path, mesh: DeviceMesh | None, targets: Mapping[str, Tensor]
) -> dict[str, Any]:
    """A checkpoint with its tensors: whole ones, or with a mesh those parts that this process is to have.

    Args:
        checkpoint: The plain values.
        folder: Of its tensors.
        mesh: The processes that share the tensors; all of them must call it.
        targets: Tensors that weights of those names are read into, so that they are in memory once.
    """
    tensors: dict[str, Tensor] = {}
    tied: Mapping[str, str] = checkpoint[PARTS_KEY]["tied"]

    def place(tree: Any) -> Any:
        if isinstance(tree, Mapping) and TENSOR_KEY in tree:
            kind, shape = getattr(torch, tree["dtype"]), tree["shape"]
            name = tied.get(tree[TENSOR_KEY], tree[TENSOR_KEY])
            if name in tensors:
                return tensors[name]
            target = targets.get(name.removeprefix("/state_dict/"))
            if mesh is None:
                fits = target is not None and list(target.shape) == shape and target.dtype == kind
                tensor = target.detach() if target is not None and fits else torch.empty(shape, dtype=kind)
            else:
                tensor = empty(shape, dtype=kind, device_mesh=mesh, placements=[Shard(0)])
            tensors[name] = tensor
            return tensor
        if isinstance(tree, Mapping):
            return {key: place(value) for key, value in tree.items()}
        if isinstance(tree, list | tuple):
            return type(tree)(place(value) for value in tree)
        return tree

    filled = place({key: value for key, value in checkpoint.items() if key != PARTS_KEY})
    reader = HuggingFaceStorageReader(str(folder))
    with warnings.catch_warnings(), fault_of_first_process():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process alone is a legal reader
        state_dict_loader.load(tensors, storage_reader=reader, no_dist=mesh is None)
    return cast(dict[str, Any], filled)


def remove_unused_parts(checkpoints: Path, used: Callable[[Path], Path | None]) -> None:
    """Remove the folders of tensors that no checkpoint names any more.

    Args:
        checkpoints: The folder of the checkpoints.
        used: The folder that a checkpoint file names.
    """
    named = {used(file) for file in checkpoints.glob("*.ckpt*") if file.is_file()}
    for folder in checkpoints.glob(f"*{FOLDER_SUFFIX}"):
        if folder not in named:
            shutil.rmtree(folder, ignore_errors=True)
