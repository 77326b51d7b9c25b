"""A checkpoint is read whole, checked, and as plain values, or not at all."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from support.resumed_runs import STEPS, overrides, weights, whole
from tunelab.errors import ConfigError
from tunelab.runs.checkpoint import read_checkpoint


class Payload:
    """Runs a command where it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_a_checkpoint_that_would_run_something_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "callbacks": Payload(tmp_path / "ran")}, tmp_path / "last.ckpt")

    with pytest.raises(ConfigError, match="holds more than plain tensors and values"):
        read_checkpoint(tmp_path / "last.ckpt")
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
