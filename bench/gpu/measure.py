"""One training on a device, in a process of its own; its figures are the last line, as JSON.

    python bench/gpu/measure.py tunelab --shape 1b --model FOLDER --data ROWS --held-out ROWS

`run.py` writes the model and the rows, and calls this once for each line of its table.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import torch
import transformers
from lightning.pytorch.callbacks import Callback
from transformers import LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from support.tiny_runs import settings  # the composer of the tests; run.py puts them on the path
from tunelab.config.schema import RunConfig
from tunelab.data.examples import IGNORE, Example
from tunelab.models.device_placement import select_training_device
from tunelab.models.flops import step_flops
from tunelab.runs.console import silence_libraries
from tunelab.training.components import build_components, build_datamodule, build_module, encode_data
from tunelab.training.memory_profile import free_bytes, plan_workload
from tunelab.training.run import fine_tune
from tunelab.training.run_inspection import measure_memory

GIB = 2**30


class Clock:
    """Work and seconds between the end of one step and that of another, the device waited for at both."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.steps, self.since, self.seconds = given, 0, 0.0, 0.0
        self.counted: list[tuple[torch.Tensor, torch.Tensor]] = []

    def step(self, documents: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """A step has been asked of the device, over documents of these lengths with these targets."""
        self.steps += 1
        if self.given.skip < self.steps <= self.given.steps:
            self.counted += documents  # counted at the end: to look into them now would wait for the device
        if self.steps in (self.given.skip, self.given.steps):
            if self.given.device == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            if self.steps == self.given.skip:
                self.since = now
            else:
                self.seconds = now - self.since

    def work(self) -> dict[str, int]:
        """Tokens, squared lengths and supervised positions of the steps between."""
        return {
            "tokens": sum(int(lengths.sum()) for lengths, _ in self.counted),
            "pairs": sum(int((lengths**2).sum()) for lengths, _ in self.counted),
            "outputs": sum(int((targets != IGNORE).sum()) for _, targets in self.counted),
        }


def words(given: argparse.Namespace) -> list[str]:
    """Overrides of the work: batch, rate, precision, no validation in between."""
    lora = ["adapter=lora"] if given.method == "lora" else []
    accelerator = "gpu" if given.device == "cuda" else "cpu"
    return [
        "data=instruction", f"data.train={given.data}", f"data.validation={given.held_out}",
        f"data.test={given.held_out}", "model=pretrained", f"model.path={given.model}",
        f"data.max_tokens={given.block}",
        f"batch_size={given.documents}", f"micro_tokens={given.block * given.blocks}", f"max_steps={given.steps}",
        "max_epochs=9", "lr=1e-4", "scheduler=constant", "logger=none", "trainer.enable_progress_bar=false",
        "trainer.precision=bf16-mixed", f"trainer.accelerator={accelerator}", "eval.base=false", "eval.generate=false",
        "test=false", "save=false", "data.template=plain", *lora, *given.words,
    ]  # fmt: skip


class StepClock(Callback):
    """Reads the clock at each step of Lightning's Trainer."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A step is over."""
        self.clock.step([(micro.lengths, micro.targets) for micro in batch.micro_batches])


def foretell(composed: RunConfig, given: argparse.Namespace) -> tuple[int, dict[str, float]]:
    """The bytes that `tunelab inspect` foretells for the device, and the factors of a step's arithmetic."""
    components = build_components(composed)
    loader = build_datamodule(components).loader("train")
    device = select_training_device(composed.trainer.accelerator)
    module = build_module(components, components.model)
    memory = measure_memory(components, module, loader, plan_workload(loader), device, free_bytes(device))
    cost = step_flops(components.model)
    return memory.peak, {"per_token": cost.per_token, "per_pair": cost.per_pair, "per_output": cost.per_output}


def train_tunelab(given: argparse.Namespace) -> dict[str, Any]:
    """`train.py` with its defaults."""
    composed, clock = settings(*words(given)), Clock(given)
    foretold, cost = foretell(composed, given)
    reset_peak(given)
    with tempfile.TemporaryDirectory() as out:
        fine_tune(composed, Path(out) / "run", callbacks=[StepClock(clock)])
    return figures(clock, given) | {"foretold_gib": foretold / GIB, "flops": cost}


def blocks_of(rows: Sequence[Example], length: int) -> Iterator[tuple[list[int], list[int], list[int]]]:
    """Rows laid end to end and cut into full blocks: ids, labels, and how many tokens of each document are in it."""
    ids: list[int] = []
    labels: list[int] = []
    lengths: list[int] = []
    for row in rows:
        rest, target = row.ids, list[Any](row.target)  # type: ignore[arg-type]  # a label for each token
        while rest:
            part = min(length - len(ids), len(rest))
            ids, labels, lengths = ids + rest[:part], labels + target[:part], [*lengths, part]
            rest, target = rest[part:], target[part:]
            if len(ids) == length:
                yield ids, labels, lengths
                ids, labels, lengths = [], [], []


class TrainerClock(TrainerCallback):
    """Reads the clock at each step of transformers' Trainer."""

    def __init__(self, clock: Clock, steps: Sequence[Sequence[tuple[torch.Tensor, torch.Tensor]]]) -> None:
        self.clock, self.steps = clock, steps

    def on_step_end(self, args: Any, state: Any, control: Any, **other: Any) -> None:
        """A step is over."""
        self.clock.step(self.steps[state.global_step - 1])


def train_trainer(given: argparse.Namespace) -> dict[str, Any]:
    """The Trainer of transformers on the same rows, packed into full blocks: no padding, causal over the block."""
    rows = encode_data(settings(*words(given))).examples["train"]
    per_step = given.blocks * given.accumulate
    packed = list(islice(blocks_of(list(rows), given.block), given.steps * per_step))
    if len(packed) < given.steps * per_step:
        raise SystemExit(f"{len(packed)} full blocks, {given.steps * per_step} needed")
    sizes = [(torch.tensor(lengths), torch.tensor(labels)) for _, labels, lengths in packed]
    steps = [sizes[step * per_step : (step + 1) * per_step] for step in range(given.steps)]
    model = LlamaForCausalLM.from_pretrained(given.model, dtype=torch.float32)
    if given.method == "lora":
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    clock = Clock(given)
    reset_peak(given)

    def collate(part: Sequence[tuple[list[int], list[int], object]]) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.tensor([one[0] for one in part]), "labels": torch.tensor([one[1] for one in part])}

    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            output_dir=out, per_device_train_batch_size=given.blocks, gradient_accumulation_steps=given.accumulate,
            max_steps=given.steps, learning_rate=1e-4, bf16=True, save_strategy="no", report_to="none",
            disable_tqdm=True, logging_steps=10, remove_unused_columns=False, use_cpu=given.device == "cpu",
            optim="adamw_torch_fused", train_sampling_strategy="sequential", lr_scheduler_type="constant",
        )  # fmt: skip
        trainer = Trainer(
            model=model, args=arguments, train_dataset=packed,  # type: ignore[arg-type]
            data_collator=collate, callbacks=[TrainerClock(clock, steps)],  # type: ignore[arg-type]
        )  # fmt: skip
        trainer.train()
    return figures(clock, given)


def reset_peak(given: argparse.Namespace) -> None:
    """Forget the memory that preparations took."""
    if given.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def figures(clock: Clock, given: argparse.Namespace) -> dict[str, Any]:
    """What the clock saw; the memory only where a GPU counts it."""
    peak = torch.cuda.max_memory_allocated() / GIB if given.device == "cuda" else None
    return {"work": clock.work(), "seconds": clock.seconds, "peak_gib": peak}


def measure_peak(given: argparse.Namespace) -> dict[str, Any]:
    """Operations a second of the best of several large matrix products in bfloat16."""
    size = 8192 if given.device == "cuda" else 512
    left = torch.randn(size, size, device=given.device, dtype=torch.bfloat16)
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        torch.mm(left, left)
        if given.device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    name = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
    return {"peak_flops": 2 * size**3 / best, "device": name, "torch": torch.__version__}


PEERS = {"peak": measure_peak, "tunelab": train_tunelab, "trainer": train_trainer}


def main() -> None:
    """Train once and print the figures."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("peer", choices=PEERS)
    reader.add_argument("words", nargs="*", help="further overrides of TuneLab")
    for name in ("model", "data", "held-out"):
        reader.add_argument(f"--{name}", default="")
    reader.add_argument("--method", choices=("full", "lora"), default="full")
    reader.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    for name, value in {"steps": 12, "skip": 4, "block": 4096, "blocks": 4, "accumulate": 2, "documents": 64}.items():
        reader.add_argument(f"--{name}", type=int, default=value)
    given = reader.parse_args()
    silence_libraries()
    transformers.logging.set_verbosity_error()
    print("BENCH " + json.dumps(PEERS[given.peer](given)), flush=True)


if __name__ == "__main__":
    main()
