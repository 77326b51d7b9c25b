"""Checkpoints in parts: written by a group of processes (here of one), read by anyone, damage named."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Shard, distribute_tensor

from tunelab.errors import ConfigError, TuneLabError
from tunelab.runs.checkpoint import (
    DamagedCheckpoint,
    copy_checkpoint,
    named_parts,
    read_checkpoint,
    write_checkpoint,
)
from tunelab.runs.sharded_checkpoint import PARTS_KEY, remove_unused_parts, write_parts


def save(path: Path, mesh: DeviceMesh, step: int = 1) -> dict[str, Any]:
    """Write a checkpoint with tied weights and the state of an optimizer; what it holds, whole."""
    table, moment = torch.arange(12.0).view(4, 3) + step, torch.full((4, 3), 0.5)
    spread = distribute_tensor(table, mesh, [Shard(0)])
    optimizer = {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": distribute_tensor(moment, mesh, [Shard(0)])}},
        "param_groups": [{"lr": 0.1, "params": [0]}],
    }
    weights = {"model.head": spread, "model.table": spread}
    values = {"global_step": step, "state_dict": weights, "optimizer_states": [optimizer]}
    write_parts(values, path, lambda plain: write_checkpoint(path, plain))
    return {"table": table, "moment": moment}


def test_one_process_reads_whole_tensors_from_parts(tmp_path: Path, mesh: DeviceMesh) -> None:
    path = tmp_path / "last.ckpt"
    written = save(path, mesh)

    checkpoint = read_checkpoint(path)

    assert torch.equal(checkpoint["state_dict"]["model.table"], written["table"])
    assert torch.equal(checkpoint["state_dict"]["model.head"], written["table"]), "tied weights are written once"
    [state] = checkpoint["optimizer_states"]
    assert torch.equal(state["state"][0]["exp_avg"], written["moment"]) and float(state["state"][0]["step"]) == 3
    assert state["param_groups"] == [{"lr": 0.1, "params": [0]}] and PARTS_KEY not in checkpoint
    assert read_checkpoint(path, values_only=True)["global_step"] == 1


def test_a_full_disk_is_said_and_leaves_no_half_written_parts(
    tmp_path: Path, mesh: DeviceMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(HuggingFaceStorageWriter, "write_data", fail)

    with pytest.raises(TuneLabError, match=r"the disk is full: .*last-0000001-\w+\.parts needs"):
        save(tmp_path / "last.ckpt", mesh)

    assert list(tmp_path.glob("last*")) == []


def test_processes_that_share_a_model_read_their_own_part(tmp_path: Path, mesh: DeviceMesh) -> None:
    path = tmp_path / "last.ckpt"
    written = save(path, mesh)

    weight = read_checkpoint(path, mesh=mesh)["state_dict"]["model.table"]

    assert torch.equal(weight.full_tensor(), written["table"]) and weight.placements == (Shard(0),)


def test_weights_are_read_into_the_tensors_that_are_there(tmp_path: Path, mesh: DeviceMesh) -> None:
    path, own = tmp_path / "best.ckpt", torch.zeros(4, 3)
    written = save(path, mesh)

    read = read_checkpoint(path, targets={"model.head": own})["state_dict"]

    assert torch.equal(own, written["table"]) and read["model.head"].data_ptr() == own.data_ptr()


@pytest.mark.parametrize("damage", ["gone", "flipped", "cut"])
def test_a_damaged_part_is_named(tmp_path: Path, mesh: DeviceMesh, damage: str) -> None:
    path = tmp_path / "last.ckpt"
    save(path, mesh)
    folder = named_parts(path)
    assert folder is not None
    [part] = folder.iterdir()
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.unlink()
    if damage != "gone":
        part.write_bytes(content if damage == "flipped" else content[:-3])

    with pytest.raises(DamagedCheckpoint, match=part.name):
        read_checkpoint(path)


@pytest.mark.parametrize("folder", ["../elsewhere.parts", "/etc", "plain", 3, None])
def test_a_checkpoint_cannot_name_a_folder_elsewhere(tmp_path: Path, folder: Any) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({PARTS_KEY: {"folder": folder, "files": {}, "tied": {}}}, path)

    with pytest.raises(ConfigError, match="folder of its tensors"):
        read_checkpoint(path)


def test_parts_go_with_the_last_checkpoint_that_names_them(tmp_path: Path, mesh: DeviceMesh) -> None:
    # Given a last checkpoint that has been replaced, while a copy of the first stands as the previous one
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    save(last, mesh, 1)
    copy_checkpoint(last, previous)
    save(last, mesh, 2)
    remove_unused_parts(tmp_path, named_parts)
    assert read_checkpoint(previous, values_only=True)["global_step"] == 1 and len(list(tmp_path.glob("*.parts"))) == 2

    # When the copy goes
    previous.unlink()
    remove_unused_parts(tmp_path, named_parts)

    # Then its parts go too
    assert [named_parts(last)] == list(tmp_path.glob("*.parts"))


def test_a_copy_in_another_run_has_the_parts_with_it(tmp_path: Path, mesh: DeviceMesh) -> None:
    there = tmp_path / "other" / "last.ckpt"
    there.parent.mkdir()
    written = save(tmp_path / "last.ckpt", mesh)

    copy_checkpoint(tmp_path / "last.ckpt", there)

    assert torch.equal(read_checkpoint(there)["state_dict"]["model.table"], written["table"])
