"""Runs cut into stages, each from the checkpoint of the one before, are one run; and a stage keeps its own rates."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from support.tiny_runs import MODEL, QUIET, instructions, settings
from tunelab.errors import ConfigError
from tunelab.runs.checkpoint import read_checkpoint
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.callbacks.search_trial import KeepOptimizerSettings, StopAtStageEnd
from tunelab.training.run import fine_tune


class Rates(Callback):
    """Notes step, rate and momentum of every step."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float, float, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        group = trainer.optimizers[0].param_groups[0]
        rate = float(trainer.callback_metrics["train/lr"])
        self.seen.append((trainer.global_step, rate, group["weight_decay"], group["betas"][0]))


def overrides(tmp_path: Path, *more: str) -> list[str]:
    return [
        "data=instruction", f"data.train={instructions(tmp_path)}", *MODEL, *QUIET, "batch_size=6", "micro_tokens=100",
        "max_epochs=4", "regularization.dropout=0.2", "lr=3e-3", "data.split.validation=0.2", "data.split.test=0.1",
        "test=false", "save=false", "trainer.log_every_n_steps=1", "callbacks.early_stopping=false",
        "eval.generate=false", *more,
    ]  # fmt: skip


def stage(tmp_path: Path, name: str, until: float | None, parent: str | None, *more: str) -> Rates:
    """Do a part of a run in a folder of its own."""
    own = [f"trial.parent={tmp_path / parent}"] if parent else []
    rates = Rates()
    callbacks = [rates, KeepOptimizerSettings(["lr", "weight_decay", "betas"])] + (
        [StopAtStageEnd(until)] if until is not None else []
    )
    fine_tune(settings(*overrides(tmp_path, *more, *own)), tmp_path / name, callbacks=callbacks)
    return rates


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / "checkpoints" / f"{name}.ckpt")["state_dict"]


@pytest.mark.parametrize("interval", ["1.0", "0.34"])  # a stage ends with an epoch, or within one
def test_stages_with_equal_settings_are_one_run(tmp_path: Path, interval: str) -> None:
    more = (f"trainer.val_check_interval={interval}",)
    whole = stage(tmp_path, "whole", None, None, *more)
    parts = [
        stage(tmp_path, "a", 0.25 if interval == "1.0" else 0.4, None, *more),
        stage(tmp_path, "b", 0.5, "a", *more),
        stage(tmp_path, "c", None, "b", *more),
    ]

    assert [line for part in parts for line in part.seen] == whole.seen
    for name in ("last", "best"):
        expected, found = weights(tmp_path / "whole", name), weights(tmp_path / "c", name)
        assert all(torch.equal(expected[key], found[key]) for key in expected)
    best = [RunDirectory(tmp_path / name).read_manifest()["best"] for name in ("whole", "c")]
    assert best[0] == best[1]


def test_a_stage_trains_at_its_own_settings_and_keeps_the_memory_of_the_optimizer(tmp_path: Path) -> None:
    first = stage(tmp_path, "a", 0.5, None)
    more = ("lr=6e-3", "regularization.weight_decay=0.2", "optimizer.betas=[0.8,0.999]")
    second = stage(tmp_path, "b", None, "a", *more)
    plain = stage(tmp_path, "c", None, "a")

    steps, rates, decays, betas = zip(*second.seen, strict=True)
    assert steps[0] == first.seen[-1][0] + 1
    assert set(decays) == {0.2} and set(betas) == {0.8}
    assert rates == pytest.approx([2 * line[1] for line in plain.seen], rel=1e-6, abs=1e-12)
    moments = read_checkpoint(tmp_path / "b" / "checkpoints" / "last.ckpt")["optimizer_states"][0]["state"]
    assert float(moments[0]["step"]) == steps[-1]


def test_nothing_is_trained_where_the_share_is_nothing(tmp_path: Path) -> None:
    stage(tmp_path, "a", None, None)
    before = RunDirectory(tmp_path / "a").read_manifest()["best"]
    again = Rates()
    fine_tune(
        settings(*overrides(tmp_path, f"resume={tmp_path / 'a'}", "max_epochs=8")),
        tmp_path / "a",
        callbacks=[again, StopAtStageEnd(0)],
    )

    assert again.seen == [] and RunDirectory(tmp_path / "a").read_manifest()["best"] == before


def test_a_parent_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no checkpoint to go on from"):
        stage(tmp_path, "b", None, "nowhere")
