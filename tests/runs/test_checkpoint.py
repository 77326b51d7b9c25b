"""A checkpoint is read whole, checked, and as plain values, or not at all."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from support.resumed_runs import STEPS, overrides, weights, whole
from tunelab.errors import ConfigError
from tunelab.runs.checkpoint import keep_previous, read_checkpoint, restore_previous, stored_bytes
from tunelab.runs.run_dir import RunDirectory


class Payload:
    """Runs a command where it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_a_checkpoint_that_would_run_something_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "callbacks": Payload(tmp_path / "ran")}, tmp_path / "last.ckpt")

    with pytest.raises(ConfigError, match="holds more than plain tensors and values") as refused:
        read_checkpoint(tmp_path / "last.ckpt")
    assert "posix.mkdir" in str(refused.value)
    assert "weights_only" not in str(refused.value)  # torch's advice to read it all the same
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_holds_plain_types_only_and_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    _, folder = whole(tmp_path, overrides(tmp_path, "max_epochs=1"))
    path = folder / "checkpoints" / "last.ckpt"
    assert torch.load(path, weights_only=True)["global_step"] == STEPS

    damaged = bytearray(path.read_bytes())
    place = damaged.index(weights(folder)["model.model.norm.weight"].numpy().tobytes())
    damaged[place] ^= 1
    path.write_bytes(damaged)

    with pytest.raises(ConfigError, match="damaged"):
        read_checkpoint(path)
    path.write_bytes(damaged[: len(damaged) // 2])
    with pytest.raises(ConfigError, match="cut short"):
        read_checkpoint(path)


def saved(folder: RunDirectory, step: int) -> None:
    """A last checkpoint of that step, as a run writes it."""
    folder.checkpoints.mkdir(exist_ok=True)
    keep_previous(folder.last, folder.previous)
    torch.save(
        {"global_step": step, "state_dict": {"weight": torch.full((9,), float(step))}}, folder.last.with_suffix("")
    )
    os.replace(folder.last.with_suffix(""), folder.last)


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "bit"])
def test_a_damaged_last_checkpoint_gives_way_to_the_one_before_it(damage: str, tmp_path: Path) -> None:
    folder = RunDirectory(tmp_path)
    for step in (3, 6, 9):
        saved(folder, step)
    whole_file = folder.last.read_bytes()
    place = whole_file.index(torch.full((9,), 9.0).numpy().tobytes())
    flipped = whole_file[:place] + bytes([whole_file[place] ^ 1]) + whole_file[place + 1 :]
    folder.last.write_bytes({"cut": whole_file[:100], "empty": b"", "gone": b"", "bit": flipped}[damage])
    if damage == "gone":
        folder.last.unlink()

    message = restore_previous(folder, "last.ckpt is damaged")

    assert message == "last.ckpt is damaged; the run goes on from the checkpoint before it, of step 6"
    assert read_checkpoint(folder.last)["global_step"] == read_checkpoint(folder.previous)["global_step"] == 6
    assert (tmp_path / "checkpoints" / "last.ckpt.damaged").exists() is (damage != "gone")


def test_without_an_earlier_checkpoint_that_is_whole_nothing_is_moved(tmp_path: Path) -> None:
    folder = RunDirectory(tmp_path)
    saved(folder, 3)
    folder.last.write_bytes(b"half")

    with pytest.raises(ConfigError, match=r"no earlier one to fall back to.*remove both"):
        restore_previous(folder, "last.ckpt is damaged")
    assert folder.last.read_bytes() == b"half"


def test_a_disk_without_room_for_two_keeps_no_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunDirectory(tmp_path)
    saved(folder, 3)
    saved(folder, 6)
    monkeypatch.setattr("tunelab.runs.checkpoint.shutil.disk_usage", lambda _: SimpleNamespace(free=10))

    saved(folder, 9)

    assert not folder.previous.exists() and read_checkpoint(folder.last)["global_step"] == 9


def test_the_bytes_of_a_checkpoint_are_those_of_its_tensors_counted_once() -> None:
    weight = torch.zeros(10, 10)
    state = {"a": weight, "tied": weight.T, "more": [torch.zeros(3, dtype=torch.int64), {"x": 5}], "name": "n"}
    assert stored_bytes(state) == 400 + 24
