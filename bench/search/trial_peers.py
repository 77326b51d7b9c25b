"""Trials as transformers' users run them: `Trainer.hyperparameter_search` with Optuna, and a script for each trial.

    python trial_peers.py search --trials 4     # trials one after the other in this process
    python trial_peers.py script --lr 1e-3      # what a grid in a shell, or an agent of a sweep, starts for each trial

The model and the rows of `trial_start.py`: a Llama of one layer, 200 of the built-in records, five steps of 32.  It
needs the environment of `bench/peers` and is called by `trial_start.py`.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

STARTER = Path(__file__).parents[2] / "src" / "tunelab" / "starter"
IGNORED, ROWS, STEPS, BATCH = -100, 200, 5, 32


def read_rows(name: str, tokenizer: Any) -> list[dict[str, list[int]]]:
    """Ids and labels of records, the loss on the answers alone."""
    lines = (STARTER / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:ROWS]
    rows = list[dict[str, list[int]]]()
    for record in map(json.loads, lines):
        question = tokenizer(f"{record['instruction']}\n{record['input']}\n")["input_ids"]
        answer = [*tokenizer(record["output"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        rows.append({"input_ids": question + answer, "labels": [IGNORED] * len(question) + answer})
    return rows


def pad(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Ids, attention mask and labels, (rows, longest)."""
    longest = max(len(row["input_ids"]) for row in rows)
    spare = [longest - len(row["input_ids"]) for row in rows]
    pairs = list(zip(rows, spare, strict=True))
    return {
        "input_ids": torch.tensor([row["input_ids"] + [0] * rest for row, rest in pairs]),
        "attention_mask": torch.tensor([[1] * (longest - rest) + [0] * rest for rest in spare]),
        "labels": torch.tensor([row["labels"] + [IGNORED] * rest for row, rest in pairs]),
    }


def make_trainer(rate: float) -> Trainer:
    """A Trainer that evaluates at the end of its five steps."""
    tokenizer = AutoTokenizer.from_pretrained(STARTER / "model")

    def make_model(trial: Any = None) -> LlamaForCausalLM:
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=88, num_hidden_layers=1, num_attention_heads=2
        )
        return LlamaForCausalLM(config)

    settings = TrainingArguments(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=BATCH, max_steps=STEPS, learning_rate=rate,
        eval_strategy="steps", eval_steps=STEPS, save_strategy="steps", save_steps=STEPS, report_to="none",
        disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, remove_unused_columns=False,
    )  # fmt: skip
    train, validation = (read_rows(name, tokenizer) for name in ("train", "validation"))
    return Trainer(
        model_init=make_model,
        args=settings,
        data_collator=pad,
        train_dataset=train,
        eval_dataset=validation,
    )


def main() -> None:
    """Search, or train once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("search", "script"))
    parser.add_argument("--trials", type=int, default=1)
    parser.add_argument("--lr", type=float, default=1e-3)
    arguments = parser.parse_args()
    trainer = make_trainer(arguments.lr)
    if arguments.kind == "script":
        trainer.train()
        return
    trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)},
        backend="optuna", n_trials=arguments.trials, direction="minimize",
    )  # fmt: skip


if __name__ == "__main__":
    main()
