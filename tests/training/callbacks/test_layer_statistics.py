"""Statistics of layers agree with what a plain loop computes, and change nothing."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from support.resumed_runs import overrides, weights
from support.tiny_models import DECODERS, decoder
from support.tiny_runs import settings
from tunelab.models.freezing import layer_stack, parameter_depths
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.callbacks.layer_statistics import activation_modules
from tunelab.training.callbacks.loss_spikes import Spikes
from tunelab.training.callbacks.resource_monitors import resident_bytes
from tunelab.training.run import fine_tune

OFF = [f"callbacks.{name}=false" for name in ("throughput", "memory", "spikes", "layers", "dead_units")]


class Plain(Callback):
    """The same figures the long way round: whole copies, one parameter at a time."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.before: dict[str, torch.Tensor] = {}
        self.norms: dict[str, float] = {}

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        named = pl_module.model.named_parameters()
        self.before = {name: weight.detach().double().clone() for name, weight in named if weight.requires_grad}

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: Any) -> None:
        named = dict(pl_module.model.named_parameters())
        self.norms = {name: float(named[name].grad.double().norm()) for name in self.before}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        depths, named = parameter_depths(pl_module.model), dict(pl_module.model.named_parameters())
        row: dict[str, float] = {}
        for depth in {depths.by_name[name] for name in self.before}:
            own = [name for name in self.before if depths.by_name[name] == depth]
            moved = (
                sum(float((named[name].detach().double() - self.before[name]).square().sum()) for name in own) ** 0.5
            )
            size = sum(float(self.before[name].square().sum()) for name in own) ** 0.5
            place = str(depth) if 0 < depth <= depths.layers else depths.name(depth).replace(" ", "_")
            row[f"layers/{place}/update_ratio"] = moved / size
            row[f"layers/{place}/grad_norm"] = sum(self.norms[name] ** 2 for name in own) ** 0.5
        self.rows.append(row)


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_norms_and_ratios_of_layers_agree_with_a_plain_loop(adapter: str, tmp_path: Path) -> None:
    plain = Plain()
    given = overrides(tmp_path, f"adapter={adapter}", "lr=3e-3", "trainer.gradient_clip_val=0", "max_epochs=2")
    fine_tune(settings(*given), tmp_path / "run", callbacks=[plain])

    rows = [row for row in RunDirectory(tmp_path / "run").read_curves() if "train/update_ratio" in row]
    assert len(rows) == len(plain.rows) == 6
    for found, wanted in zip(rows, plain.rows, strict=True):
        assert {name for name in found if name.endswith(("grad_norm", "update_ratio"))} - wanted.keys() == {
            "train/grad_norm", "train/update_ratio",
        }  # fmt: skip
        assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-4)
        squares = sum(value**2 for name, value in found.items() if name.startswith("layers/") and "grad" in name)
        assert found["train/grad_norm"] == pytest.approx(squares**0.5, rel=1e-4)


def test_a_gradient_is_measured_before_it_is_clipped(tmp_path: Path) -> None:
    def norms(clip: float) -> dict[str, float]:
        given = overrides(tmp_path, f"trainer.gradient_clip_val={clip}", "max_steps=1", "data.split.validation=0")
        fine_tune(settings(*given), tmp_path / f"run{clip}")
        rows = RunDirectory(tmp_path / f"run{clip}").read_curves()
        return {name: value for name, value in rows[0].items() if name.endswith("grad_norm")}

    assert norms(0.01) == pytest.approx(norms(0), rel=1e-4)


def test_watching_changes_no_weight(tmp_path: Path) -> None:
    one, other = (
        overrides(tmp_path, "callbacks.activations=true"),
        overrides(tmp_path, *OFF, "callbacks.train_eval_rows=0"),
    )
    fine_tune(settings(*one), tmp_path / "one")
    fine_tune(settings(*other), tmp_path / "other")

    a, b = weights(tmp_path / "one"), weights(tmp_path / "other")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not any(name.startswith("layers/") for row in RunDirectory(tmp_path / "other").read_curves() for name in row)
    row = next(row for row in RunDirectory(tmp_path / "one").read_curves() if "layers/2/activation_rms" in row)
    assert row["layers/2/activation_max"] > row["layers/2/activation_rms"] > 0 and row["train/memory_mb"] > 50


def test_a_unit_that_no_token_switches_on_is_dead(tmp_path: Path) -> None:
    class Kill(Callback):
        """Pulls the first twelve units of the upper layer far below zero; a rate near zero leaves them there."""

        def on_fit_start(self, trainer: L.Trainer, pl_module: Any) -> None:
            mlp = pl_module.model.model.layers[1].mlp
            mlp.gate_proj.weight.data[:12] = 0.0

    run = settings(*overrides(tmp_path, "model.activation=relu", "lr=1e-12", "max_epochs=1"))
    fine_tune(run, tmp_path / "run", callbacks=[Kill()])

    rows = [row for row in RunDirectory(tmp_path / "run").read_curves() if "train/dead_units" in row]
    units = 4 * 32
    assert len(rows) > 1
    for row in rows:
        assert row["layers/2/dead_units"] >= 12 / units > row["layers/1/dead_units"] + 0.02
        both = (row["layers/1/dead_units"] + row["layers/2/dead_units"]) / 2
        assert row["train/dead_units"] == pytest.approx(both)


def test_activation_functions_are_found_in_every_family() -> None:
    for family in DECODERS:
        model = decoder(family)
        stack, count = layer_stack(model)
        layers = [model.get_submodule(f"{stack}.{place}") for place in range(count)]
        assert all(len(list(activation_modules(layer))) == 1 for layer in layers), family

    assert (
        len(list(activation_modules(torch.nn.Sequential(torch.nn.Softmax(-1), torch.nn.GELU(), torch.nn.Dropout()))))
        == 1
    )


def test_a_jump_is_one_spike_however_long_it_lasts_and_noise_is_none() -> None:
    watch = Spikes()
    draw = torch.Generator().manual_seed(0)
    for _ in range(100):
        watch.add_loss(2.0 + 0.3 * float(torch.randn((), generator=draw)))
    assert watch.count == 0

    for loss in (9.0, 8.0, 2.0, 2.1, 7.0, 2.0):
        watch.add_loss(loss)
    assert (watch.count, round(watch.height)) == (2, 4)


def test_small_losses_may_double_without_being_spikes() -> None:
    watch = Spikes()
    for loss in [5.0, *[0.01, 0.012] * 30, 0.2]:
        watch.add_loss(loss)

    assert watch.count == 0


def test_spikes_survive_a_resume() -> None:
    one, other = Spikes(), Spikes()
    for loss in [2.0, 2.1, 1.9] * 10:
        one.add_loss(loss)
    other.load_state_dict(one.state_dict())
    for watch in (one, other):
        for loss in (9.0, 2.0, 9.0):
            watch.add_loss(loss)

    assert one.state_dict() == other.state_dict() and one.count == 2


def test_resident_memory_grows_with_what_is_held() -> None:
    before = resident_bytes()
    if before is None:
        pytest.skip("this system does not tell")
    held = torch.ones(2**24)
    after = resident_bytes()

    assert after is not None and after - before > 0.9 * held.numel() * 4
