"""Estimates of `tunelab inspect` for a run before it trains, against what then happens."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.tiny_runs import MODEL, QUIET, WORDS, settings, write
from tunelab.cli.main import main
from tunelab.models.device_placement import select_training_device
from tunelab.runs.run_dir import RunDirectory
from tunelab.training import run_inspection
from tunelab.training.components import RunComponents, build_components, build_module, count_planned_steps
from tunelab.training.memory_profile import peak_bytes
from tunelab.training.run import fine_tune
from tunelab.training.run_inspection import RunInspection, inspect_run
from tunelab.training.trial_steps import preserve_model, run_trial_steps

SIZES = {"wide": (3, 96, 4), "deep": (6, 48, 4)}


def even(folder: Path, rows: int = 64) -> Path:
    """Records of one length, so that every step weighs the same."""
    words = [WORDS[(i * 7 + j * 3) % 10] for i in range(rows) for j in range(12)]
    return write(
        folder / "even.jsonl",
        [{"instruction": f"say {i:02d}", "output": " ".join(words[12 * i : 12 * i + 12])} for i in range(rows)],
    )


def given(folder: Path, *more: str) -> list[str]:
    """The words of a command line."""
    return [
        "data=instruction",
        f"data.train={even(folder)}",
        "data.split.validation=0.2",
        "batch_size=16",
        "test=false",
        *QUIET,
        *more,
    ]


def scratch(size: str) -> list[str]:
    """A fresh model of some size."""
    depth, width, heads = SIZES[size]
    return [
        "model=scratch", f"model.depth={depth}", f"model.width={width}", f"model.heads={heads}", "model.context=128",
    ]  # fmt: skip


MEMORY = {
    "adamw": ("wide", []),
    "adamw, deep": ("deep", []),
    "several passes in a step": ("wide", ["micro_tokens=128"]),
    "sgd": ("wide", ["optimizer=sgd"]),
    "adafactor": ("deep", ["optimizer=adafactor"]),
    "muon": ("wide", ["optimizer=muon"]),
    "lion": ("deep", ["optimizer=lion"]),
    "lora": ("wide", ["adapter=lora"]),
    "layers computed twice": ("deep", ["memory.activation_checkpointing=true"]),
    "steps in the backward pass": ("deep", ["memory.step_in_backward=true", "trainer.gradient_clip_val=0"]),
    "logits in parts": ("wide", ["memory.chunked_loss=true"]),
    "top layers": ("deep", ["adapter=top_layers"]),
    "an average of the weights": ("wide", ["regularization=ema"]),
    "64 bit": ("wide", ["trainer.precision=64-true"]),
    "radam, small passes": ("wide", ["optimizer=radam", "batch_size=2"]),
}


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at all but speed and strategies, which take three quarters of its time."""
    monkeypatch.setattr(run_inspection, "measure_speed", lambda *_: None)
    monkeypatch.setattr(run_inspection, "forecast_costs", lambda *_: None)


def estimate_and_reality(prepared: RunComponents) -> tuple[RunInspection, int]:
    """The estimate, and the most bytes that three real steps take beside the weights."""
    found, device = inspect_run(prepared), select_training_device(str(prepared.settings.trainer.accelerator))
    with preserve_model(prepared.model):
        module = build_module(prepared, prepared.model)
        if device.type == "cuda":
            prepared.model.to(device)
        return found, peak_bytes(lambda: run_trial_steps(prepared, module, 3, []), device)


FEW = ("adamw", "steps in the backward pass")  # the others take the slow suite
CASES = [
    pytest.param(name, marks=[] if name in FEW else pytest.mark.slow, id=name.replace(" ", "-")) for name in MEMORY
]


@pytest.mark.parametrize("case", CASES)
def test_the_peak_of_real_steps_is_within_fifteen_per_cent_of_the_estimate(case: str, tmp_path: Path) -> None:
    size, more = MEMORY[case]
    words = given(tmp_path, *scratch(size), "scheduler=constant", "trainer.accelerator=cpu", *more)

    found, taken = estimate_and_reality(build_components(settings(*words)))

    assert found.memory.weights + taken == pytest.approx(found.memory.peak, rel=0.15)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("case", MEMORY)
def test_the_peak_on_a_gpu_is_within_fifteen_per_cent_of_the_estimate(
    case: str, precision: str, tmp_path: Path
) -> None:
    size, more = MEMORY[case]
    words = given(tmp_path, *scratch(size), "model.width=768", f"trainer.precision={precision}", *more)

    found, taken = estimate_and_reality(build_components(settings(*words)))
    print(
        f"{case}, {precision}: foretold {found.memory.peak / 2**20:.1f} MiB, "
        f"taken {(found.memory.weights + taken) / 2**20:.1f} MiB"
    )

    assert found.memory.weights + taken == pytest.approx(found.memory.peak, rel=0.15)


@pytest.mark.usefixtures("untimed")
def test_steps_tokens_rates_and_warm_up_are_those_of_the_run(tmp_path: Path) -> None:
    # Given a run that logs every step
    words = given(tmp_path, *MODEL, "max_epochs=2", "scheduler.warmup=3", "trainer.log_every_n_steps=1")
    prepared = build_components(settings(*words))

    # When it is foretold, and when it is done
    found = inspect_run(prepared)
    fine_tune(settings(*words, "save=false"), tmp_path / "run")

    # Then both agree
    curves = RunDirectory(tmp_path / "run").read_curves()
    rates = [row["train/lr"] for row in curves if "train/lr" in row]
    assert found.planned_steps == len(rates) == count_planned_steps(prepared.settings, prepared.epoch_rows)
    assert found.learning_rates.rates == pytest.approx(rates)
    assert found.learning_rates.warmup == 3
    assert found.planned_tokens == [row["train/tokens_seen"] for row in curves if "train/tokens_seen" in row][-1]


@pytest.mark.parametrize("precision", ["32-true", pytest.param("64-true", marks=pytest.mark.slow)])
def test_looking_leaves_weights_modes_and_random_numbers_as_they_were(precision: str, tmp_path: Path) -> None:
    def generators() -> list[Any]:
        return [random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()]

    words = given(tmp_path, *MODEL, "regularization=dropout", f"trainer.precision={precision}")
    prepared = build_components(settings(*words))
    before = {name: value.clone() for name, value in prepared.model.state_dict().items()}
    modes, drawn = [module.training for module in prepared.model.modules()], generators()

    inspect_run(prepared)

    after = prepared.model.state_dict()
    assert all(value.dtype == before[name].dtype and torch.equal(value, before[name]) for name, value in after.items())
    assert [module.training for module in prepared.model.modules()] == modes
    assert generators() == drawn
    assert all(weight.grad is None for weight in prepared.model.parameters())


DEEP = ["model=scratch", "model.depth=10", "model.width=32", "model.heads=2", "model.context=128"]
STARTS = {
    "as they come": ([], "healthy"),
    "scaled by depth": (["model.init=depth_scaled"], "healthy"),
    "much too large": (["model.initial_std=1", "model.width=64", "model.activation=relu2"], "exploding"),
    "much too small": (["model.initial_std=1e-4"], "vanishing"),
    "much too small, wider and deeper": (["model.initial_std=1e-4", "model.width=128", "model.depth=24"], "vanishing"),
}


@pytest.mark.parametrize(
    "case",
    [pytest.param(name, marks=[pytest.mark.slow] * ("deeper" in name), id=name.replace(" ", "-")) for name in STARTS],
)
@pytest.mark.usefixtures("untimed")
def test_first_weights_get_the_verdict_they_earn(case: str, tmp_path: Path) -> None:
    more, word = STARTS[case]

    found = inspect_run(build_components(settings(*given(tmp_path, *DEEP, *more))))

    assert found.signal_verdict.health == word, found.signal_verdict.reasons
    assert len(found.signals.names) == (25 if "model.depth=24" in more else 11)


def test_the_command_tells_it_all_and_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "look.html"

    with pytest.raises(SystemExit) as left:
        main(["inspect", *given(tmp_path, *MODEL), "--output", str(page)])

    said = capsys.readouterr().out
    assert left.value.code == 0
    for words in ("parameters", "FLOPs per token", "expected time", "warm-up", "activations", "healthy"):
        assert words in said
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 4
    assert "://" not in text.replace("http://www.w3.org", "")


@pytest.mark.usefixtures("untimed")
def test_arithmetic_per_token_is_six_per_weight_of_the_layers_plus_attention(tmp_path: Path) -> None:
    # Given a model of 3 layers of width 96
    prepared = build_components(settings(*given(tmp_path, *scratch("wide"))))

    # When its work is estimated
    found = inspect_run(prepared)

    # Then it is 6 for each entry of a matrix, attention over half of all pairs, and the head where something is learned
    model: Any = prepared.model
    matrices = sum(weight.numel() for weight in model.model.layers.parameters() if weight.ndim == 2)
    lengths = found.workload.lengths
    attention = 12 * 3 * 96 * sum(n * n for n in lengths) / 2 / sum(lengths)
    head = 6 * 96 * len(model.get_input_embeddings().weight) * found.workload.learned / sum(lengths)
    assert found.flops_per_token == pytest.approx(6 * matrices + attention + head, rel=0.1)
