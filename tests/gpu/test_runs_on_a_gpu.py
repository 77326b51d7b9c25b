"""Runs on a GPU: what they compute, that they repeat and go on, and what their card tells."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from transformers import AutoModelForCausalLM

from support.paths import ROOT
from support.tiny_runs import MODEL, QUIET, config, instructions, settings, write
from tunelab.config.resume import resume_config
from tunelab.config.validate import validate_config
from tunelab.errors import TuneLabError
from tunelab.models.packing_support import varlen_available
from tunelab.models.unpadded_attention import VARLEN_KERNEL
from tunelab.runs.checkpoint import read_checkpoint
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.components import build_components
from tunelab.training.finders.micro_tokens_finder import find_micro_tokens
from tunelab.training.run import fine_tune
from tunelab.training.run_inspection import inspect_run

REPEATS = ["trainer.deterministic=true", "trainer.accelerator=gpu"]


class Stop(Callback):
    """Sends a signal after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def given(folder: Path, *more: str) -> list[str]:
    """A dozen steps over uneven rows."""
    return [
        "data=instruction", f"data.train={instructions(folder)}", *QUIET, "batch_size=6", "micro_tokens=100",
        "max_epochs=4", "lr=3e-3", "data.split.validation=0.2", "data.split.test=0.1", "save=false", "test=false",
        "trainer.log_every_n_steps=1", *more,
    ]  # fmt: skip


def weights(run: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
    return {name: weight.cpu() for name, weight in found.items()}


def same(one: Path, other: Path) -> bool:
    mine, theirs = weights(one), weights(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_in_full_precision_a_gpu_trains_the_weights_that_a_cpu_trains(tmp_path: Path) -> None:
    for place in ("cpu", "gpu"):
        words = given(tmp_path, *MODEL, f"trainer.accelerator={place}", "trainer.precision=32-true")
        fine_tune(settings(*words), tmp_path / place)

    mine, theirs = weights(tmp_path / "gpu"), weights(tmp_path / "cpu")
    for name, weight in mine.items():
        torch.testing.assert_close(weight, theirs[name], atol=2e-3, rtol=0)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit", "muon"])
def test_a_run_repeats_itself_and_one_stopped_on_the_way_ends_at_the_same_weights(
    optimizer: str, base: Path, tmp_path: Path
) -> None:
    if optimizer == "adamw_8bit":
        pytest.importorskip("bitsandbytes")
    model = ["model=pretrained", f"model.path={base}", "regularization.dropout=0"]
    words = [*given(tmp_path, *model, *REPEATS, f"optimizer={optimizer}")]
    for name in ("one", "two"):
        fine_tune(settings(*words), tmp_path / name)
    with pytest.raises(SystemExit):
        fine_tune(settings(*words), tmp_path / "parts", callbacks=[Stop(4)])
    fine_tune(
        validate_config(resume_config(config(f"resume={tmp_path}/parts"), [f"resume={tmp_path}/parts"])),
        tmp_path / "parts",
    )

    assert same(tmp_path / "one", tmp_path / "two")
    assert same(tmp_path / "one", tmp_path / "parts")


def test_half_precision_is_taken_by_itself_and_the_masters_stay_whole(base: Path, tmp_path: Path) -> None:
    words = given(tmp_path, "model=pretrained", f"model.path={base}", "data.packing=true")
    fine_tune(settings(*words, "trainer.accelerator=auto"), tmp_path / "run")

    last = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    trained = [tensor for name, tensor in last["state_dict"].items() if name.startswith("model.")]
    assert {tensor.dtype for tensor in trained if tensor.is_floating_point()} == {torch.float32}
    curves = RunDirectory(tmp_path / "run").read_curves()
    losses = [row["train/loss"] for row in curves if "train/loss" in row]
    assert losses[-1] < losses[0] - 0.5
    card = RunDirectory(tmp_path / "run").read_manifest()
    assert card["hardware"]["gpus"] and card["status"] == "finished"
    assert all(row["train/mfu"] > 0 for row in curves if "train/mfu" in row)


def test_packed_rows_go_through_pytorchs_kernel_for_documents(base: Path, tmp_path: Path) -> None:
    # Given a run in half precision that lays its rows end to end
    words = given(tmp_path, "model=pretrained", f"model.path={base}", "data.packing=true")
    prepared = build_components(settings(*words, "trainer.precision=bf16-mixed"))

    # Then the kernel was found exact on this GPU, or its own attention is used where this PyTorch has none
    found = prepared.model.config._attn_implementation
    assert found == VARLEN_KERNEL or not varlen_available(), found


@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_low_rank_layers_learn_over_a_whole_and_a_packed_base(kind: str, base: Path, tmp_path: Path) -> None:
    if kind == "qlora":
        pytest.importorskip("bitsandbytes")
    words = [word for word in given(tmp_path, "model=pretrained", f"model.path={base}") if not word.startswith("save")]
    words = [word for word in words if word != "test=false"]
    fine_tune(settings(*words, f"adapter={kind}", "lr=1e-2", "eval.base=true"), tmp_path / "run")

    run = RunDirectory(tmp_path / "run")
    scores = run.read_scores()
    assert scores["test/loss"] < scores["base/loss"] - 0.5
    assert run.best.stat().st_size < 0.5 * (base / "model.safetensors").stat().st_size
    exported = AutoModelForCausalLM.from_pretrained(run.export)  # whole weights, whatever the base was packed in
    assert {weight.dtype for weight in exported.parameters()} == {torch.float32}


def test_the_largest_micro_tokens_is_found_where_memory_runs_out(base: Path, tmp_path: Path) -> None:
    # Given rows of some hundred tokens, so that a whole batch takes some hundred MiB
    rows = [{"instruction": f"say {i}", "output": " ".join(["red blue"] * 150)} for i in range(24)]
    file = write(tmp_path / "long.jsonl", rows)
    words = given(tmp_path, "model=pretrained", f"model.path={base}", "batch_size=16", "data.packing=false")
    words = [word for word in words if not word.startswith("data.train=")]
    prepared = build_components(settings(*words, f"data.train={file}"))
    whole = find_micro_tokens(prepared).value
    assert whole == find_micro_tokens(prepared).value  # nothing is left behind that a second look would meet

    # When there is less memory than the whole batch takes, but more than one row does
    total, needs = torch.cuda.get_device_properties(0).total_memory, inspect_run(prepared).memory.peak
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction((needs + 100 * 2**20) / total)
        less = find_micro_tokens(prepared).value
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert less is not None and whole is not None and 100 <= less < whole


def test_memory_that_runs_out_is_told_with_what_to_try(base: Path, tmp_path: Path) -> None:
    words = given(tmp_path, "model=pretrained", f"model.path={base}", "micro_tokens=100000", "batch_size=24")
    total = torch.cuda.get_device_properties(0).total_memory
    try:
        torch.cuda.set_per_process_memory_fraction(48 * 2**20 / total)
        with pytest.raises(TuneLabError, match="(?s)out of memory.*micro_tokens"):
            fine_tune(settings(*words), tmp_path / "run")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert RunDirectory(tmp_path / "run").read_manifest()["status"] == "failed"


def test_a_search_hands_each_slot_the_gpu(tmp_path: Path) -> None:
    words = [
        *given(tmp_path, *MODEL), "max_epochs=1", "lr=1e-3,3e-3", "search.devices_per_trial=1",
        "search.parallel_trials=1", f"hydra.sweep.dir={tmp_path}/study", "search.test_best=false",
    ]  # fmt: skip
    subprocess.run([sys.executable, str(ROOT / "train.py"), "-m", *words], check=True, cwd=tmp_path, timeout=500)

    cards = [RunDirectory(tmp_path / "study" / str(number)).read_manifest() for number in (0, 1)]
    assert [card["status"] for card in cards] == ["finished", "finished"]
