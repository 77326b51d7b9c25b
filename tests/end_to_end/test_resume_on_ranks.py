"""Two processes that stop together and go on together end exactly as two that never stopped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from support.paths import ROOT
from support.tiny_runs import MODEL, QUIET, instructions
from tunelab.runs.checkpoint import read_checkpoint
from tunelab.runs.run_dir import RunDirectory


def train(*given: str) -> None:
    done = subprocess.run(
        [sys.executable, "train.py", *given], cwd=ROOT, capture_output=True, text=True, timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow  # six interpreters import everything
def test_two_ranks_resumed_in_mid_epoch_are_bit_equal_to_two_that_went_through(tmp_path: Path) -> None:
    # Given epochs of three steps on two processes, with dropout; the rate does not know how long the run will be
    given = [
        "data=instruction", f"data.train={instructions(tmp_path)}", *MODEL, *QUIET, "batch_size=6",
        "scheduler=constant",
        "regularization.dropout=0.2", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.log_every_n_steps=1",
        "test=false", "save=false", "max_epochs=4",
    ]  # fmt: skip
    whole, parts = tmp_path / "whole", tmp_path / "parts"

    # When one goes through eight steps, and one stops after four and goes on
    train(*given, "max_steps=8", f"hydra.run.dir={whole}")
    train(*given, "max_steps=4", f"hydra.run.dir={parts}")
    train(f"resume={parts}", "max_steps=8")

    # Then weights and losses are the same bits
    one, two = (read_checkpoint(RunDirectory(folder).last)["state_dict"] for folder in (whole, parts))
    assert all(torch.equal(weight, two[name]) for name, weight in one.items())
    losses = [
        [row["train/loss"] for row in RunDirectory(f).read_curves() if "train/loss" in row] for f in (whole, parts)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 8
