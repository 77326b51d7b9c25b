"""Weights that are stepped within the backward pass take the steps of one call for all of them."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from support.tiny_runs import MODEL, QUIET, config, instructions, settings
from tunelab.config.validate import validate_config
from tunelab.errors import ConfigError, Diverged
from tunelab.runs.checkpoint import read_checkpoint
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.run import fine_tune

STEPPED = "memory.step_in_backward=true"


def words(folder: Path, *more: str) -> list[str]:
    return [
        *("data=instruction", f"data.train={instructions(folder, 32)}", *MODEL, *QUIET, "trainer.accelerator=cpu"),
        *("max_steps=5", "batch_size=8", "save=false", "test=false", "trainer.gradient_clip_val=0"),
        *("eval.generate=false", "trainer.log_every_n_steps=1", *more),
    ]


def trained(folder: Path, *more: str) -> tuple[dict[str, Any], list[float]]:
    run = folder / str(len(list(folder.iterdir())))
    fine_tune(settings(*words(folder, *more)), run)
    norms = [row["train/grad_norm"] for row in RunDirectory(run).read_curves() if "train/grad_norm" in row]
    return read_checkpoint(run / "checkpoints" / "last.ckpt"), norms


@pytest.mark.parametrize(
    "more",
    [
        ["optimizer=adamw"],
        ["optimizer=sgd", "micro_tokens=60", "regularization=ema"],
        pytest.param(["optimizer=adafactor"], marks=pytest.mark.slow),
        pytest.param(["optimizer=lion", "adapter=lora"], marks=pytest.mark.slow),
        pytest.param(["optimizer=nadam", "adapter.unfreeze_every=2"], marks=pytest.mark.slow),
    ],
    ids=lambda more: more[0].removeprefix("optimizer="),
)
def test_weights_state_and_norms_are_those_of_one_step_for_all(more: list[str], tmp_path: Path) -> None:
    (plain, norms), (stepped, others) = trained(tmp_path, *more), trained(tmp_path, *more, STEPPED)

    assert others == pytest.approx(norms, rel=1e-5) and len(norms) == 5
    for name, weight in plain["state_dict"].items():
        torch.testing.assert_close(stepped["state_dict"][name], weight, rtol=1e-6, atol=1e-7)
    states = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (plain, stepped)]
    assert states[0].keys() == states[1].keys()
    assert plain["global_step"] == stepped["global_step"] == 5


def test_gradients_never_stand_side_by_side(tmp_path: Path) -> None:
    class Count(Callback):
        most = 0

        def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
            weights = [weight for weight in pl_module.model.parameters() if weight.requires_grad]

            def count(weight: torch.Tensor) -> None:
                self.most = max(self.most, sum(weight.grad is not None for weight in weights))

            for weight in weights:
                weight.register_post_accumulate_grad_hook(count)

    count = Count()
    fine_tune(settings(*words(tmp_path, STEPPED)), tmp_path / "run", callbacks=[count])

    assert count.most <= 2


def test_a_loss_that_is_no_number_moves_no_weight(tmp_path: Path) -> None:
    class Poison(Callback):
        before: dict[str, torch.Tensor]

        def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
            if trainer.global_step == 2:
                next(pl_module.model.parameters()).data[0].fill_(float("nan"))
                pl_module.model.lm_head.register_forward_hook(lambda module, args, output: output * float("nan"))
                self.model = pl_module.model
                self.before = {name: value.clone() for name, value in pl_module.model.state_dict().items()}

    poison = Poison()
    with pytest.raises(Diverged):
        fine_tune(settings(*words(tmp_path, STEPPED)), tmp_path / "run", callbacks=[poison])
    after = poison.model.state_dict()
    assert all(torch.equal(after[name].nan_to_num(), value.nan_to_num()) for name, value in poison.before.items())


def test_what_needs_the_whole_gradient_is_refused_all_at_once_with_what_to_try() -> None:
    given = ["data=instruction", "data.train=x", STEPPED, "optimizer=muon", "callbacks.on_nonfinite=skip"]
    given += ["trainer.devices=2", "regularization=l1"]
    with pytest.raises(ConfigError) as refused:
        validate_config(config(*given))
    for said in (
        "Muon steps all weights together; take optimizer=adamw", "set trainer.gradient_clip_val=0",
        "trainer.devices=1", "callbacks.on_nonfinite=stop", "regularization.l1=",
    ):  # fmt: skip
        assert said in str(refused.value)
