"""Scores of answers to a validation split on one or two processes, left in a file.  Run by tests: DEVICES SIZE FILE."""

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch

from tunelab.config.schema import PretrainedModelConfig
from tunelab.data.examples import Example
from tunelab.models.load_model import load_model, load_tokenizer
from tunelab.tasks.instruction import Instruction
from tunelab.tasks.metrics.answer_metrics import GenerationEvaluator
from tunelab.training.datamodule import BatchDataModule
from tunelab.training.module import FineTuner

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
STARTER = PretrainedModelConfig(path="package:tunelab.starter/model")
WORDS = "red blue green gold grey pink teal plum sand rust".split()


def records(task: Instruction, model: Any) -> list[dict[str, Any]]:
    """23 records of uneven length; the answer of every third is what the model says, so that it counts as right."""
    found = [{"prompt": " ".join(WORDS[: i % 7 + 1]) + f" {i}", "completion": WORDS[i % 10]} for i in range(23)]
    said = task.generate_predictions(model, range(23), found)
    return [
        {**r, "completion": s["prediction"] if i % 3 == 0 else r["completion"]}
        for i, (r, s) in enumerate(zip(found, said, strict=True))
    ]


def main(devices: int, batch_size: int, target: Path) -> None:
    """Validate, and leave the scores and the rows that were asked in `target`."""
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(STARTER)
    task = Instruction(format="prompt_completion", max_new_tokens=8)
    task.set_tokenizer(tokenizer, 128)
    model = load_model(STARTER, tokenizer, head="causal", options={})
    rows = records(task, model)
    encoded = [task.encode(record, row) for row, record in enumerate(rows)]
    examples: list[Example] = [example for example in encoded if example is not None]
    data = BatchDataModule(
        {"train": examples, "validation": examples, "test": []},
        task, batch_size=8, eval_batch_size=batch_size, micro_tokens=60, seed=1, packed=False, workers=0,
    )  # fmt: skip
    module = FineTuner(model, task, optimizer=lambda p: torch.optim.SGD(p, 0.1), schedule=lambda step: 1.0)
    module.generation_check = GenerationEvaluator(task, task.totals, rows, set(range(1, 23)))
    trainer = L.Trainer(
        accelerator="cpu", devices=devices, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    (scores,) = trainer.validate(module, datamodule=data, verbose=False)
    if trainer.is_global_zero:
        target.write_text(json.dumps(scores))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
