"""Runs that go wrong on purpose, each in one way, and small enough for a test."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from support.tiny_runs import MODEL, QUIET, WORDS, instructions, labelled, settings, write
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.run import fine_tune

PLAIN = [*MODEL, *QUIET, "test=false", "save=false", "trainer.log_every_n_steps=1", "eval.generate=false", "seed=1"]
CONSTANT = ["scheduler=constant", "scheduler.warmup=0"]


class Spoil(Callback):
    """Changes weights at some steps; with `back` only for that step."""

    def __init__(self, change: Callable[[Any], None], *steps: int, back: bool = False) -> None:
        self.change, self.steps, self.back = change, steps, back
        self.kept: dict[str, torch.Tensor] = {}

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step in self.steps:
            if self.back:
                self.kept = {name: weight.detach().clone() for name, weight in pl_module.model.named_parameters()}
            with torch.no_grad():
                self.change(pl_module.model)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        for name, weight in pl_module.model.named_parameters():
            if name in self.kept:
                weight.data.copy_(self.kept[name])
        self.kept = {}


class Leak(Callback):
    """Keeps 64 megabytes of every step."""

    def __init__(self) -> None:
        self.held: list[torch.Tensor] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.held.append(torch.ones(2**24))


def few_words(folder: Path) -> Path:
    """A tokenizer that knows most of the words of our texts, and no number."""
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]")
    tokenizer.save_pretrained(folder / "few_words")
    return folder / "few_words"


def faint(model: Any) -> None:
    """Weights of the lower layer so small that next to nothing comes through it, either way."""
    for weight in model.model.layers[0].parameters():
        if weight.ndim == 2:
            weight.mul_(1e-6)


def kill(model: Any) -> None:
    """Gates of the upper layer at nothing, but for a few."""
    model.model.layers[1].mlp.gate_proj.weight[8:] = 0.0


def loud(model: Any) -> None:
    """Logits a thousand times as large."""
    model.model.norm.weight.mul_(1000)


def shake(model: Any) -> None:
    """Embeddings of other words."""
    weight = model.get_input_embeddings().weight
    weight.copy_(10 * weight.roll(1, 0))


def poison(model: Any) -> None:
    """A weight that is no number."""
    next(iter(model.parameters())).fill_(float("nan"))


def asked(tmp: Path, *more: str) -> list[str]:
    """Instructions: 16 rows to learn from, six at a time, three steps an epoch."""
    return ["data=instruction", f"data.train={instructions(tmp)}", *PLAIN, "batch_size=6", "data.split.validation=0.2",
            "data.split.test=0.1", *more]  # fmt: skip


def told(tmp: Path, records: Sequence[dict[str, Any]], *more: str) -> list[str]:
    """Labelled texts, sixteen at a time."""
    given = write(tmp / "told.jsonl", list(records))
    return ["data=classification", f"data.train={given}", "data.text=text", "data.label=label", *PLAIN, "batch_size=16",
            "data.split.validation=0.25", "data.split.test=0", *more]  # fmt: skip


def scored(tmp: Path, records: Sequence[dict[str, Any]], *more: str) -> list[str]:
    """Texts with a number, sixteen at a time."""
    given = write(tmp / "scored.jsonl", list(records))
    return ["data=regression", f"data.train={given}", "data.text=text", "data.target=number", *PLAIN, "batch_size=16",
            "data.split.validation=0.25", "data.split.test=0", *more]  # fmt: skip


def texts(rows: int, label: Callable[[int, random.Random], Any], key: str = "label") -> list[dict[str, Any]]:
    """Texts of words drawn at random, and what is said of them, which their words do not tell."""
    draw = random.Random(0)
    return [{"text": f"{' '.join(draw.choices(WORDS, k=4))} {i}", key: label(i, draw)} for i in range(rows)]


def uneven(rows: int, long: int) -> list[dict[str, Any]]:
    """One long text in eight."""
    return [
        {"text": f"{WORDS[i % 3]} {i}" + " red" * (long if i % 8 == 0 else 0), "label": WORDS[i % 3]}
        for i in range(rows)
    ]


def alike(rows: int) -> list[dict[str, Any]]:
    """Texts that differ in their last words only, two thirds of them with the same label."""
    return [{"text": f"red blue green gold grey pink {i}", "label": "ab"[i % 3 == 0]} for i in range(rows)]


def first_word(tmp: Path, *more: str, rows: int = 120) -> list[str]:
    """Texts whose first word is their label: soon learned."""
    return ["data=classification", f"data.train={labelled(tmp, rows)}", "data.text=text", "data.label=label", *PLAIN,
            "batch_size=16", "data.split.validation=0.2", "data.split.test=0", *more]  # fmt: skip


def trained(tmp: Path, given: Sequence[str], *callbacks: Callback) -> RunDirectory:
    """The folder of a run."""
    fine_tune(settings(*given), tmp / "run", callbacks=callbacks)
    return RunDirectory(tmp / "run")
