"""A healthy run is left alone, whatever it learns and however."""

from collections.abc import Callable
from pathlib import Path

import pytest

from support.failing_runs import first_word, scored, trained
from support.tiny_runs import WORDS
from tunelab.training.run_diagnosis import diagnose_run

STARTER = ["model=starter", "data=starter", "data.limit=800", "eval.generate=false", "logger=none", "test=false"]
STARTER += ["save=false", "trainer.enable_progress_bar=false", "eval.base=false", "trainer.log_every_n_steps=2"]
EPOCHS = "max_epochs=10"
numbers = [{"text": f"{WORDS[i % 3]} {WORDS[i % 10]} {i}", "number": (i % 3) + 0.5} for i in range(120)]

HEALTHY: dict[str, Callable[[Path], list[str]]] = {
    "instruction": lambda tmp: [*STARTER, "max_epochs=3"],
    "instruction, lora": lambda tmp: [*STARTER, "adapter=lora", "max_epochs=3"],
    "instruction, averaged and smoothed": lambda tmp: [
        *STARTER,
        "regularization=[l2,ema,label_smoothing]",
        "max_epochs=3",
    ],
    "instruction, last layers": lambda tmp: [*STARTER, "adapter=top_layers", "optimizer=muon", "max_epochs=3"],
    "classification": lambda tmp: first_word(tmp, EPOCHS, "lr=3e-3"),
    "classification, sgd": lambda tmp: first_word(tmp, EPOCHS, "optimizer=sgd", "lr=0.3"),
    "classification, lion": lambda tmp: first_word(tmp, EPOCHS, "optimizer=lion"),
    "classification, adafactor": lambda tmp: first_word(tmp, EPOCHS, "optimizer=adafactor", "lr=1e-2"),
    "classification, dropout, constant": lambda tmp: first_word(
        tmp, EPOCHS, "lr=3e-3", "regularization=dropout", "scheduler=constant"
    ),
    "regression": lambda tmp: scored(tmp, numbers, EPOCHS, "lr=3e-3"),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[] if k == "classification" else pytest.mark.slow) for k in HEALTHY]
)
def test_a_healthy_run_is_left_alone(kind: str, tmp_path: Path) -> None:
    folder = trained(tmp_path, HEALTHY[kind](tmp_path))

    assert not [(found.verdict, found.message) for found in diagnose_run(folder, write=False)]
    assert len(folder.read_curves()) > 10
