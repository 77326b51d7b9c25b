"""Speed figures count real tokens, cost nothing between log lines, and survive a resume."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from tunelab.data.examples import IGNORE, Batch, MicroBatch
from tunelab.models.flops import peak_flops, step_flops
from tunelab.tracking.csv_logger import CurveLogger, read_curve_rows
from tunelab.training.callbacks import resource_monitors
from tunelab.training.callbacks.progress import PlainProgress, progress_callback
from tunelab.training.callbacks.resource_monitors import Throughput


def small_model(**changes: Any) -> LlamaForCausalLM:
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "attn_implementation": "eager"}
    return LlamaForCausalLM(LlamaConfig(**{**shape, **heads, **changes}))


def step_of(lengths: list[int], width: int) -> Batch:
    ids = torch.zeros(len(lengths), width, dtype=torch.int64)
    micro = MicroBatch(ids, torch.tensor(lengths), torch.full_like(ids, IGNORE), torch.arange(len(lengths)))
    return Batch([micro, micro], loss_weight=8.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the monitor takes for now: they pass where a test says so, however busy the machine is."""
    now = [0.0]
    monkeypatch.setattr(resource_monitors, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return now


class SaveAtThree(Callback):
    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == 3:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "three.ckpt")


class Idle(LightningModule):
    """Trains one number; a step takes ten milliseconds of a clock, a validation half a second."""

    def __init__(self, clock: list[float]) -> None:
        super().__init__()
        self.clock = clock
        self.model = small_model()
        self.automatic_optimization = False

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.clock[0] += 0.01
        self.optimizers().step()  # type: ignore[union-attr]
        self.log("train/loss", 1.0, batch_size=1)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.clock[0] += 0.5
        self.log("val/loss", 2.0, batch_size=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([next(self.parameters())], lr=0.0)


def fit(
    folder: Path, clock: list[float], *callbacks: Any, steps: int = 6, resume: str | None = None
) -> list[dict[str, str]]:
    batches = DataLoader([step_of([3, 5], 6)] * 100, batch_size=None)
    logger = CurveLogger(folder, resume_from_step=None)
    trainer = Trainer(
        default_root_dir=folder,
        max_steps=steps,
        accelerator="cpu",
        logger=logger,
        callbacks=list(callbacks),
        log_every_n_steps=2,
        val_check_interval=3,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Idle(clock), batches, batches, ckpt_path=resume, weights_only=True)
    return read_curve_rows(folder / "metrics.csv")[1]


def test_figures_count_real_tokens_and_leave_validation_time_out(tmp_path: Path, clock: list[float]) -> None:
    rows = [row for row in fit(tmp_path, clock, Throughput()) if "train/tokens_seen" in row]
    assert [int(row["step"]) for row in rows] == [1, 3, 5]
    assert [float(row["train/tokens_seen"]) for row in rows] == [32.0, 64.0, 96.0]
    assert [float(row["train/padding_fraction"]) for row in rows] == pytest.approx([1 - 16 / 24] * 3)
    for row in rows:  # two steps of 10 ms each; half a second of validation would pull this under 64
        assert float(row["train/tokens_per_second"]) == pytest.approx(32 / 0.02)
        assert 0 < float(row["train/mfu"]) < 1


def test_tokens_seen_goes_on_after_a_resume_between_two_log_lines(tmp_path: Path, clock: list[float]) -> None:
    fit(tmp_path, clock, Throughput(), SaveAtThree(), steps=5)
    rows = fit(tmp_path, clock, Throughput(), steps=6, resume=str(tmp_path / "three.ckpt"))
    seen = [float(row["train/tokens_seen"]) for row in rows if "train/tokens_seen" in row]
    assert seen == [64.0, 96.0]


def test_a_step_between_log_lines_costs_under_a_tenth_of_a_millisecond() -> None:
    callback, step = Throughput(), step_of([3] * 16, 6)

    class Quiet:
        log_every_n_steps = 0

    trainer: Any = Quiet()
    module: Any = None
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        for index in range(500):
            callback.on_train_batch_start(trainer, module, step, index)
            callback.on_train_batch_end(trainer, module, None, step, index)
        best = min(best, (time.process_time() - start) / 500)
    assert best < 1e-4


@pytest.mark.parametrize("tied", [False, True])
def test_the_cost_of_a_step_agrees_with_pytorch_counting_it(tied: bool) -> None:
    model = small_model(tie_word_embeddings=tied)
    ids = torch.zeros(3, 16, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    cost = step_flops(model)
    ours = cost.operations(tokens=48, pairs=3 * 16**2, outputs=48)
    assert ours == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_frozen_weights_below_the_lowest_learning_one_cost_a_forward_pass_only() -> None:
    model = small_model()
    ids = torch.zeros(3, 16, dtype=torch.int64)
    model.model.requires_grad_(False)
    model.model.layers[1].requires_grad_(True)
    model.model.norm.requires_grad_(True)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    ours = step_flops(model).operations(tokens=48, pairs=3 * 16**2, outputs=48)
    assert ours == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_the_probe_of_a_cpu_is_quick_and_plausible_and_draws_no_random_number() -> None:
    state = torch.get_rng_state()
    start = time.process_time()
    peak = peak_flops(torch.device("cpu"), torch.float32)
    assert time.process_time() - start < 2
    assert peak is not None
    assert 1e8 < peak < 1e14
    assert torch.equal(state, torch.get_rng_state())


def test_plain_progress_prints_few_lines_and_every_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = progress_callback()  # pytest is no terminal
    assert isinstance(bar, PlainProgress)
    fit(tmp_path, [0.0], Throughput(), bar, steps=6)
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() for line in lines)
    assert sum(line.startswith("validation at step") for line in lines) == 2
    assert "validation at step 3  val/loss 2" in lines
    steps = [line for line in lines if line.startswith("step ")]
    assert 1 <= len(steps) <= 4
    assert steps[-1].startswith("step 6/6  epoch 1/1  loss 1  lr ")
    assert "tokens/s" in steps[-1] and steps[-1].endswith("0:00 left")
