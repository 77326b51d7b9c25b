"""Histograms of gradients: of the whole step, as often as asked."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from support.thread_ranks import run_on_ranks
from support.tiny_runs import MODEL, QUIET, instructions, settings
from support.uneven_rows import tiny_model
from tunelab.config.schema import FsdpConfig
from tunelab.models.sharding import shard_model
from tunelab.training.callbacks.layer_statistics import GradientHistograms
from tunelab.training.components import build_components, build_datamodule, build_module


class Draws(DummyLogger):
    """Keeps what it is asked to draw."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[tuple[int, dict[str, Tensor]]] = []

    def log_histograms(self, values: dict[str, Tensor], step: int) -> None:
        self.drawn.append((step, {name: value.clone() for name, value in values.items()}))


def drawn_in(folder: Path, *words: str) -> list[tuple[int, dict[str, Tensor]]]:
    """The histograms drawn in a run of three steps, by step."""
    given = ["data=instruction", f"data.train={instructions(folder)}", "max_steps=3", "batch_size=8", *words]
    prepared = build_components(settings(*given, *MODEL, *QUIET))
    tracker = Draws()
    trainer: Any = L.Trainer(
        max_steps=3,
        logger=[tracker],
        callbacks=[GradientHistograms(2)],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(build_module(prepared, prepared.model), datamodule=build_datamodule(prepared))
    return tracker.drawn


def test_every_second_step_every_parameter_is_drawn(tmp_path: Path) -> None:
    drawn = drawn_in(tmp_path)
    assert [step for step, _ in drawn] == [0, 2]
    assert len(drawn[0][1]) > 10
    assert all(name.startswith("model.") for name in drawn[0][1])


def test_the_gradient_is_that_of_the_whole_step_however_it_is_cut(tmp_path: Path) -> None:
    whole, cut = drawn_in(tmp_path), drawn_in(tmp_path, "micro_tokens=64")
    for name, gradient in whole[0][1].items():
        torch.testing.assert_close(cut[0][1][name], gradient, rtol=1e-4, atol=1e-6)


def test_the_main_process_draws_the_whole_gradient_of_a_model_that_four_share() -> None:
    # Given the gradient of a sum of all logits, of which each process has a part
    tokens, models = torch.arange(12).view(2, 6), [tiny_model() for _ in range(4)]
    whole = tiny_model()
    whole(input_ids=tokens).logits.sum().backward()

    def work(mesh: DeviceMesh, rank: int) -> list[tuple[int, dict[str, Tensor]]]:
        shard_model(models[rank], mesh, FsdpConfig())
        models[rank](input_ids=tokens).logits.sum().backward()
        tracker = Draws()
        trainer: Any = SimpleNamespace(global_step=4, is_global_zero=rank == 0, loggers=[tracker])
        GradientHistograms(2).on_before_optimizer_step(trainer, models[rank], None)  # type: ignore[arg-type]
        return tracker.drawn

    (first, *others) = run_on_ranks(4, 2, work)

    # Then one of them draws all of it
    assert others == [[], [], []] and first[0][0] == 4
    for name, weight in whole.named_parameters():
        torch.testing.assert_close(first[0][1][name], weight.grad, rtol=1e-5, atol=1e-5)
