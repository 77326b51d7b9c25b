"""Histograms of gradients: of the whole step, as often as asked."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor

from support.tiny_runs import MODEL, QUIET, instructions, settings
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
