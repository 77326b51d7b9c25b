"""A run with an adapter that was stopped and resumed ends exactly as one that was not."""

import os
import signal
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from support.tiny_runs import MODEL, QUIET, config, instructions, settings
from tunelab.config.resume import resume_config
from tunelab.config.validate import validate_config
from tunelab.runs.checkpoint import read_checkpoint
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.run import fine_tune


class StopAt(Callback):
    """Notes the loss of every step, and sends SIGTERM after one of them."""

    def __init__(self, step: int = 0) -> None:
        self.step = step
        self.seen: list[tuple[int, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append((trainer.global_step, float(trainer.callback_metrics["train/loss"])))
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


CASES = {
    "lora": ["adapter=lora", "adapter.dropout=0.1"],
    "dora with rates by layer": ["adapter=dora", "adapter.layer_decay=0.5"],
    "soft prompt": ["adapter=prompt", "adapter.length=3"],
    "norms": ["adapter=layernorm"],
    "gradual unfreezing": ["adapter.unfreeze_every=3", "adapter.freeze=[]", "+adapter.unfreeze_at.mlp=4"],
}


@pytest.mark.parametrize("case", CASES, ids=[name.replace(" ", "-") for name in CASES])
def test_a_resumed_adapter_is_bit_equal_to_an_uninterrupted_one(case: str, tmp_path: Path) -> None:
    given = [
        "data=instruction", f"data.train={instructions(tmp_path)}", *MODEL, *QUIET, "batch_size=6", "max_epochs=3",
        "regularization.dropout=0.2", "lr=3e-3", "data.split.validation=0.2", "data.split.test=0.1", "seed=1",
        "optimizer.betas=[0.9,0.99]", *CASES[case],
    ]  # fmt: skip

    # Given an uninterrupted run
    whole = StopAt()
    fine_tune(settings(*given), tmp_path / "whole", callbacks=[whole])
    # When the same run is stopped in mid-epoch and gone on with
    first, second = StopAt(4), StopAt()
    folder = tmp_path / "parts"
    with pytest.raises(SystemExit):
        fine_tune(settings(*given), folder, callbacks=[first])
    fine_tune(
        validate_config(resume_config(config(f"resume={folder}"), [f"resume={folder}"])), folder, callbacks=[second]
    )

    # Then losses, weights, optimizer state and scores are the same
    assert first.seen + second.seen == whole.seen
    for name in ("last.ckpt", "best.ckpt"):
        one, other = (read_checkpoint(tmp_path / run / "checkpoints" / name) for run in ("whole", "parts"))
        assert one["state_dict"].keys() == other["state_dict"].keys()
        assert all(torch.equal(one["state_dict"][key], other["state_dict"][key]) for key in one["state_dict"]), name
    assert RunDirectory(tmp_path / "whole").read_scores() == RunDirectory(folder).read_scores()
