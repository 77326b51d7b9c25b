"""Training speed on a GPU: ours against a plain loop and transformers' Trainer, same rows, same model, same steps.

    python bench/gpu/run.py --model 135m --steps 30 --rounds 3
    python bench/gpu/run.py --model 1b --batch 8 --steps 12

The peers take turns in one process.  A figure is the tokens of real text (pads left out) over the time from the end of
step SKIP to the end of the last one, the GPU waited for at both ends.  All compute in bfloat16 over float32 weights and
clip at 1; the others use the fused AdamW.  `--device cpu --model tiny` tries the script out, no more.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
import torch
import transformers
from lightning.pytorch.callbacks import Callback
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from support.tiny_runs import settings  # noqa: E402  # the composer of the tests
from tunelab.config.schema import PretrainedModelConfig  # noqa: E402
from tunelab.data.examples import IGNORE, Example  # noqa: E402
from tunelab.models.load_model import load_tokenizer  # noqa: E402
from tunelab.runs.console import silence_libraries  # noqa: E402
from tunelab.training.components import encode_data  # noqa: E402
from tunelab.training.run import fine_tune  # noqa: E402

SKIP = 5  # steps that warm up
SHAPES = {  # layers, width, inner width, heads, key heads, vocabulary: of models that people fine-tune
    "tiny": (2, 64, 128, 2, 1, 1536),
    "135m": (30, 576, 1536, 9, 3, 49152),
    "1b": (16, 2048, 8192, 32, 8, 128256),
}


class Clock:
    """Tokens and seconds between the end of one step and that of another."""

    def __init__(self, device: str) -> None:
        self.device, self.tokens, self.steps = device, 0, 0
        self.since = self.seconds = 0.0
        self.counted = 0

    def step(self, tokens: int, last: bool) -> None:
        """A step over so many tokens has been asked of the device."""
        self.steps += 1
        self.tokens += tokens
        if self.steps == SKIP or last:
            if self.device == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            if self.steps == SKIP:
                self.since, self.counted = now, self.tokens
            else:
                self.seconds = now - self.since

    def rate(self) -> float:
        """Tokens a second."""
        return (self.tokens - self.counted) / self.seconds


def make_model(folder: Path, shape: str) -> None:
    """A model of random weights with the built-in tokenizer, as a pretrained one would lie there."""
    layers, width, inner, heads, keys, vocabulary = SHAPES[shape]
    tokenizer = load_tokenizer(PretrainedModelConfig(path="package:tunelab.starter/model"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=keys, max_position_embeddings=2048, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_rows(path: Path, rows: int, longest: int) -> None:
    """Instructions whose lengths spread as real ones do: many short, few long."""
    draw, words = random.Random(0), "red blue green gold grey pink teal plum sand rust".split()
    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            asked, told = (max(4, min(longest // 4, int(draw.lognormvariate(3.5, 0.8)))) for _ in range(2))
            record = {
                "prompt": " ".join(draw.choices(words, k=asked)),
                "completion": " ".join(draw.choices(words, k=told)),
            }
            file.write(json.dumps(record) + "\n")


def padded(rows: Sequence[Example], pad: int) -> dict[str, torch.Tensor]:
    """A batch as everyone makes it: on the right, to the longest."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), pad)
    labels = torch.full((len(rows), longest), IGNORE)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.tensor(list(row.ids))
        labels[place, : len(row.ids)] = torch.tensor(list(row.target))
        mask[place, : len(row.ids)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def plain(folder: Path, rows: Sequence[Example], given: argparse.Namespace) -> Clock:
    """A loop without any framework."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).to(given.device).train()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    clock = Clock(given.device)
    for step in range(given.steps):
        part = rows[step * given.batch : (step + 1) * given.batch]
        batch = {name: tensor.to(given.device) for name, tensor in padded(part, 0).items()}
        with torch.autocast(given.device, torch.bfloat16):
            loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.step(sum(len(row.ids) for row in part), step == given.steps - 1)
    return clock


class TrainerClock(TrainerCallback):
    """Reads the clock at each step of transformers' Trainer."""

    def __init__(self, clock: Clock, tokens: Sequence[int]) -> None:
        self.clock, self.tokens = clock, tokens

    def on_step_end(self, args: Any, state: Any, control: Any, **other: Any) -> None:
        self.clock.step(self.tokens[state.global_step - 1], state.global_step == len(self.tokens))


def hf_trainer(folder: Path, rows: Sequence[Example], given: argparse.Namespace) -> Clock:
    """The Trainer of transformers with a collator that pads."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    clock, size = Clock(given.device), given.batch
    tokens = [sum(len(row.ids) for row in rows[step * size : (step + 1) * size]) for step in range(given.steps)]
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            output_dir=out, per_device_train_batch_size=size, max_steps=given.steps, learning_rate=1e-4, bf16=True,
            save_strategy="no", report_to="none", disable_tqdm=True, logging_steps=10, remove_unused_columns=False,
            use_cpu=given.device == "cpu", optim="adamw_torch_fused", train_sampling_strategy="sequential",
        )  # fmt: skip
        trainer = Trainer(
            model=model, args=arguments, train_dataset=list(rows),  # type: ignore[arg-type]
            data_collator=lambda part: padded(part, 0), callbacks=[TrainerClock(clock, tokens)],
        )  # fmt: skip
        trainer.train()
    return clock


def ours(*words: str) -> Callable[[Path, Sequence[Example], argparse.Namespace], Clock]:
    """`train.py` with these overrides."""

    def train(folder: Path, rows: Sequence[Example], given: argparse.Namespace) -> Clock:
        clock = Clock(given.device)
        with tempfile.TemporaryDirectory() as out:
            fine_tune(
                settings(*base_words(folder, given), *words), Path(out) / "run", callbacks=[OurStep(clock, given)]
            )
        return clock

    return train


class OurStep(Callback):
    """Reads the clock at each step of Lightning's Trainer."""

    def __init__(self, clock: Clock, given: argparse.Namespace) -> None:
        self.clock, self.steps = clock, given.steps

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step <= self.steps:
            tokens = sum(int(micro.lengths.sum()) for micro in batch.micro_batches)
            self.clock.step(tokens, trainer.global_step == self.steps)


def base_words(folder: Path, given: argparse.Namespace) -> list[str]:
    """Overrides of the same work: batch, rate, precision, no validation in between."""
    return [
        "data=instruction", f"data.train={folder.parent}/rows.jsonl", "model=pretrained", f"model.path={folder}",
        f"batch_size={given.batch}", f"micro_tokens={given.micro_tokens}", f"max_steps={given.steps}", "max_epochs=9",
        "lr=1e-4", "scheduler=constant", "logger=none", "trainer.enable_progress_bar=false",
        "trainer.precision=bf16-mixed", f"trainer.accelerator={'gpu' if given.device == 'cuda' else 'cpu'}",
        "eval.base=false", "eval.generate=false", "test=false", "save=false", "data.template=plain",
    ]  # fmt: skip


PEERS = {
    "plain loop": plain,
    "transformers Trainer": hf_trainer,
    "tunelab, padded": ours("data.packing=false"),
    "tunelab": ours(),
    "tunelab, fused AdamW": ours("+optimizer.fused=true"),
}


def main() -> None:
    """Print a table."""
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--model", choices=SHAPES, default="135m")
    reader.add_argument("--device", default="cuda")
    for name, value in {"steps": 30, "rounds": 3, "batch": 32, "micro_tokens": 16384, "longest": 1024}.items():
        reader.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    given = reader.parse_args()
    silence_libraries()
    transformers.logging.set_verbosity_error()
    found: dict[str, list[float]] = {name: [] for name in PEERS}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        make_model(folder, given.model)
        make_rows(Path(place) / "rows.jsonl", given.steps * given.batch * 3 // 2, given.longest)
        rows = encode_data(settings(*base_words(folder, given))).examples["train"]
        memory: dict[str, float] = {}
        for turn in range(given.rounds):
            names = [*PEERS]
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                torch.backends.cuda.enable_cudnn_sdp(True)  # as PyTorch has it, for those who leave it so
                if given.device == "cuda":
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats()
                found[name].append(PEERS[name](folder, rows, given).rate())
                memory[name] = torch.cuda.max_memory_allocated() / 2**30 if given.device == "cuda" else 0.0
                print(f"round {turn + 1}, {name}: {found[name][-1]:,.0f} tokens/s", flush=True)
    lengths = sorted(len(row.ids) for row in rows)
    where = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
    print(
        f"{where}, torch {torch.__version__}, {given.model}, batch {given.batch}, "
        f"tokens a row: median {median(lengths):.0f}, longest {lengths[-1]}"
    )
    for name, rates in found.items():
        ratios = [mine / other for mine, other in zip(rates, found["plain loop"], strict=True)]
        print(
            f"{name:22} {median(rates):10,.0f} tokens/s  {median(ratios):5.2f} x the plain loop "
            f"({min(ratios):.2f} to {max(ratios):.2f})  {memory[name]:5.1f} GiB"
        )


if __name__ == "__main__":
    main()
