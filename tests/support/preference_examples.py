"""Pairs for tests: the built-in instructions, each answer beside that of another record of its family."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from tunelab.config.resource_paths import resolve_path
from tunelab.data.examples import Example
from tunelab.tasks.preference import Preference

STARTER = "package:tunelab.starter/model"


def pairs(split: str, rows: int) -> list[dict[str, Any]]:
    """The first pairs of a split."""
    source = resolve_path(f"package:tunelab.starter/data/{split}.jsonl")
    assert source is not None
    records = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    found = []
    for place, record in enumerate(records[:rows]):
        others = (other["output"] for other in records[place + 1 :] if other["family"] == record["family"])
        wrong = next(output for output in others if output != record["output"])
        prompt = f"{record['instruction']}\n\n{record['input']}"
        found.append({"prompt": prompt, "chosen": record["output"], "rejected": wrong})
    return found


def write_pairs(folder: Path, split: str, rows: int) -> Path:
    """The same as a file."""
    path = folder / f"{split}.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs(split, rows)), encoding="utf-8")
    return path


def starter_model() -> PreTrainedModel:
    """The built-in model, in evaluation mode."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(resolve_path(STARTER), dtype=torch.float32)
    return model.eval()


def moved(model: PreTrainedModel, by: float = 0.02) -> PreTrainedModel:
    """The model a few steps on from where it was: every weight a little elsewhere."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(by * torch.randn(weight.shape, generator=draw))
    return model


def ready(limit: int | None = None, **settings: Any) -> Preference:
    """The task with the built-in tokenizer."""
    task = Preference(**settings)
    task.set_tokenizer(AutoTokenizer.from_pretrained(resolve_path(STARTER)), limit)
    return task


def encoded(task: Preference, rows: int) -> list[Example]:
    """Training pairs as examples, without a reference yet."""
    found = [task.encode(pair, row) for row, pair in enumerate(pairs("train", rows))]
    return [example for example in found if example is not None]
