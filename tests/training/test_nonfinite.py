"""A step that is not finite moves no weight: it ends the run, is left out, or sends it back to an earlier state."""

from math import isfinite
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.optim.lr_scheduler import LambdaLR

from support.resumed_runs import Watch, again, curves, overrides, weights
from support.tiny_runs import CONF, MODEL, settings
from tunelab.errors import Diverged
from tunelab.runs.checkpoint import read_checkpoint
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.components import build_components, build_module
from tunelab.training.run import fine_tune

OPTIMIZERS = sorted(path.stem for path in (CONF / "optimizer").glob("*.yaml"))


class Poison(Callback):
    """Makes the gradients of some steps not a number, as a bad row would."""

    def __init__(self, *steps: int) -> None:
        self.steps, self.handles = steps, list[Any]()
        self.before: dict[str, torch.Tensor] = {}
        self.moved = False

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step in self.steps:
            weight = next(pl_module.model.parameters())
            self.handles.append(weight.register_hook(lambda gradient: gradient * float("nan")))
            self.before = {name: w.detach().clone() for name, w in pl_module.model.named_parameters()}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.handles:
            self.handles.pop().remove()
            now = dict(pl_module.model.named_parameters())
            self.moved |= any(not torch.equal(weight, now[name]) for name, weight in self.before.items())


def test_the_rate_that_was_typed_is_named_beside_that_of_the_step(tmp_path: Path) -> None:
    given = overrides(tmp_path, "lr=4e-3", "scheduler.warmup=8", "callbacks.on_nonfinite=stop", "max_epochs=3")

    with pytest.raises(Diverged, match=r"Lower lr \(at most 0\.004 in this run, 0\.00[0-3]\d* at this step\)"):
        fine_tune(settings(*given), tmp_path / "run", callbacks=[Poison(2)])


def test_a_step_that_is_left_out_counts_and_moves_nothing(tmp_path: Path) -> None:
    poison = Poison(4, 5)
    given = overrides(tmp_path, "callbacks.on_nonfinite=skip", "max_epochs=3")
    fine_tune(settings(*given), tmp_path / "run", callbacks=[poison])

    folder = RunDirectory(tmp_path / "run")
    checkpoint = read_checkpoint(folder.last)
    assert not poison.moved
    assert folder.read_manifest()["status"] == "finished"
    assert checkpoint["global_step"] == checkpoint["lr_schedulers"][0]["last_epoch"] == 9
    rows = {int(row["step"]): row for row in folder.read_curves() if "train/spikes" in row}
    assert not isfinite(rows[4]["train/grad_norm"]) and isfinite(rows[6]["train/loss"])
    assert rows[5]["train/skipped_steps"] == 2 == rows[8]["train/skipped_steps"]
    assert all(weight.isfinite().all() for weight in checkpoint["state_dict"].values())


def test_a_rollback_brings_back_weights_and_halves_the_rate(tmp_path: Path) -> None:
    class Look(Callback):
        def __init__(self) -> None:
            self.seen: dict[int, torch.Tensor] = {}
            self.rates: dict[int, float] = {}

        def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            self.seen[trainer.global_step] = next(pl_module.model.parameters()).detach().clone()
            self.rates[trainer.global_step] = trainer.optimizers[0].param_groups[0]["lr"]

    look = Look()
    more = ["callbacks.on_nonfinite=rollback", "callbacks.rollback_every=3", "scheduler=constant", "max_epochs=3"]
    fine_tune(settings(*overrides(tmp_path, *more)), tmp_path / "run", callbacks=[look, Poison(4)])

    assert torch.equal(look.seen[5], look.seen[3]) and not torch.equal(look.seen[4], look.seen[3])
    assert look.rates[5] == look.rates[8] == look.rates[4] / 2
    assert not torch.equal(look.seen[6], look.seen[5])


def test_weights_that_overflowed_are_healed_by_a_rollback_and_not_by_a_skip(tmp_path: Path) -> None:
    class Overflow(Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
            if trainer.global_step == 5:
                next(pl_module.model.parameters()).data.fill_(float("inf"))

    for kind in ("rollback", "skip"):
        more = [f"callbacks.on_nonfinite={kind}", "callbacks.nonfinite_limit=2", "data.split.validation=0"]
        run = settings(*overrides(tmp_path, *more))
        if kind == "skip":
            with pytest.raises(Diverged, match=r"(?s)stopped at step 7.*2 steps were skipped.*nonfinite_limit"):
                fine_tune(run, tmp_path / kind, callbacks=[Overflow()])
        else:
            fine_tune(run, tmp_path / kind, callbacks=[Overflow()])
            assert RunDirectory(tmp_path / kind).read_manifest()["status"] == "finished"


@pytest.mark.slow
def test_a_run_resumed_before_a_rollback_goes_back_to_the_same_state(tmp_path: Path) -> None:
    given = overrides(tmp_path, "callbacks.on_nonfinite=rollback", "callbacks.rollback_every=3")
    fine_tune(settings(*given), tmp_path / "whole", callbacks=[Poison(5, 7)])

    for watch in (Watch(4), Watch(6)):
        run = again(tmp_path / "parts") if (tmp_path / "parts").exists() else settings(*given)
        with pytest.raises(SystemExit):
            fine_tune(run, tmp_path / "parts", callbacks=[watch, Poison(5, 7)])
    fine_tune(again(tmp_path / "parts"), tmp_path / "parts", callbacks=[Poison(5, 7)])

    one, other = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert str(curves(tmp_path / "whole")) == str(curves(tmp_path / "parts"))  # nan is no number, nor equal to itself


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_optimizer_moves_a_weight_in_a_step_left_out(optimizer: str, tmp_path: Path) -> None:
    given = [entry for entry in overrides(tmp_path, f"optimizer={optimizer}") if not entry.startswith("lr=")]
    if optimizer == "adamw_8bit":
        pytest.importorskip("bitsandbytes")
        if not torch.cuda.is_available():
            pytest.skip("its kernels need a CUDA GPU")
    # Given an optimizer with momentum and decay, one step old
    prepared = build_components(settings(*given, *MODEL, "callbacks.on_nonfinite=skip", "callbacks.nonfinite_limit=1"))
    module = build_module(prepared, prepared.model)
    found: Any = module.configure_optimizers()
    one, scheduler = found[0][0], found[1][0]
    assert isinstance(scheduler, LambdaLR)

    def closure() -> torch.Tensor:
        for weight in prepared.model.parameters():
            weight.grad = torch.full_like(weight, 0.1)
        return torch.ones(())

    closure()
    one.step(closure)
    before = {name: weight.detach().clone() for name, weight in prepared.model.named_parameters()}

    # When a step is left out
    module.guard.skip_step("step 1: loss nan", one, scheduler)

    # Then every weight is what it was, and the schedule has gone on
    assert all(torch.equal(weight, before[name]) for name, weight in prepared.model.named_parameters())
    assert scheduler.last_epoch == 1 and module.guard.skipped_steps == 1
