"""The peers on W1 and W2: the same rows, batch size, optimizer and clipping as `run.py` gives TuneLab.

    python loops.py KIND --model DIR --data FILE

Each function of KINDS is one peer.  `plain` is the loop that a person writes first: the model of transformers, padded
batches, fused AdamW, clipping at 1, no framework.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

IGNORED = -100  # label of a position without a loss
Row = dict[str, Any]


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of every loop, `hand_written.py` too."""
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--steps", type=int, default=200)


def read_rows(file: str) -> list[Row]:
    """The JSON lines of a file."""
    return [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]


def load_causal(arguments: argparse.Namespace) -> tuple[Any, list[tuple[list[int], int]]]:
    """The model, and of each row its ids with the end token and the length of its prompt."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    rows = read_rows(arguments.data)
    prompts = tokenizer([row["prompt"] for row in rows], add_special_tokens=False)["input_ids"]
    answers = tokenizer([row["completion"] for row in rows], add_special_tokens=False)["input_ids"]
    encoded = [
        ((prompt + answer + [tokenizer.eos_token_id])[: arguments.max_tokens], len(prompt))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    return AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32), encoded


def load_labels(arguments: argparse.Namespace) -> tuple[Any, list[tuple[list[int], int]]]:
    """The encoder with a head for four labels, and of each row its ids and its label."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    rows = read_rows(arguments.data)
    names = sorted({row["label"] for row in rows})
    ids = tokenizer([row["text"] for row in rows], truncation=True, max_length=128)["input_ids"]
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        arguments.model, num_labels=len(names), dtype=torch.float32
    )
    return model, [(one, names.index(row["label"])) for one, row in zip(ids, rows, strict=True)]


def pad_causal(batch: list[tuple[list[int], int]]) -> dict[str, Any]:
    """Ids, attention mask and labels, (rows, longest)."""
    import torch

    longest = max(len(ids) for ids, _ in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    labels, mask = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
    for row, (tokens, prompt) in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, prompt : len(tokens)] = ids[row, prompt : len(tokens)]
        mask[row, : len(tokens)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def pad_labels(batch: list[tuple[list[int], int]]) -> dict[str, Any]:
    """Ids and attention mask, (rows, longest), and labels, (rows,)."""
    import torch

    longest = max(len(ids) for ids, _ in batch)
    ids = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens, _ in batch])
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": torch.tensor([y for _, y in batch])}


def batches(rows: list[Any], arguments: argparse.Namespace) -> Iterator[list[Any]]:
    """As many batches as there are steps, in the order of the file."""
    for step in range(arguments.steps):
        start = step * arguments.batch % (len(rows) - arguments.batch)
        yield rows[start : start + arguments.batch]


def loop(model: Any, loss_of: Callable[[Any], Any], batches: Iterable[Any], arguments: argparse.Namespace) -> None:
    """Train with no framework: fused AdamW, a rate that falls to nothing, clipping at 1."""
    import torch

    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=arguments.lr, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / arguments.steps))
    model.train()
    for step, batch in enumerate(batches):
        loss = loss_of(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        if step % 10 == 9:
            print(step + 1, round(float(loss), 4), flush=True)


def plain(arguments: argparse.Namespace) -> None:
    """W1 with no framework."""
    model, rows = load_causal(arguments)
    loop(model, lambda batch: model(**batch).loss, map(pad_causal, batches(rows, arguments)), arguments)


def labels_plain(arguments: argparse.Namespace) -> None:
    """W2 with no framework."""
    model, rows = load_labels(arguments)
    loop(model, lambda batch: model(**batch).loss, map(pad_labels, batches(rows, arguments)), arguments)


def train_with_transformers(model: Any, rows: list[Any], collate: Any, sampling: str, arguments: Any) -> None:
    """Train with the Trainer of transformers."""
    import tempfile

    import transformers

    settings = transformers.TrainingArguments(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=arguments.batch, max_steps=arguments.steps,
        learning_rate=arguments.lr, save_strategy="no", report_to="none", disable_tqdm=True, logging_steps=10,
        remove_unused_columns=False, use_cpu=True, dataloader_pin_memory=False, train_sampling_strategy=sampling,
    )  # fmt: skip
    transformers.Trainer(model=model, train_dataset=rows, data_collator=collate, args=settings).train()


def trainer(arguments: argparse.Namespace) -> None:
    """W1 with the Trainer of transformers."""
    model, rows = load_causal(arguments)
    train_with_transformers(model, rows, pad_causal, "sequential", arguments)


def trainer_grouped(arguments: argparse.Namespace) -> None:
    """W1 with the Trainer of transformers, rows of like length in a batch."""
    model, rows = load_causal(arguments)
    named = [{"input_ids": ids, "prompt": prompt} for ids, prompt in rows]
    train_with_transformers(
        model, named, lambda batch: pad_causal([(row["input_ids"], row["prompt"]) for row in batch]),
        "group_by_length", arguments,
    )  # fmt: skip


def labels_trainer(arguments: argparse.Namespace) -> None:
    """W2 with the Trainer of transformers."""
    model, rows = load_labels(arguments)
    train_with_transformers(model, rows, pad_labels, "sequential", arguments)


def lightning(arguments: argparse.Namespace) -> None:
    """W1 with Lightning as it comes: bar, CSV, checkpoints, a logged loss."""
    import tempfile

    import lightning as L
    import torch
    from torch.utils.data import DataLoader

    model, rows = load_causal(arguments)

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            loss: torch.Tensor = self.model(**batch).loss
            self.log("train/loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=arguments.lr, fused=True)

    module = Module()
    module.train()
    L.Trainer(
        accelerator="cpu", devices=1, max_steps=arguments.steps, gradient_clip_val=1.0,
        default_root_dir=tempfile.mkdtemp(),
    ).fit(module, DataLoader(rows, batch_size=arguments.batch, collate_fn=pad_causal))  # type: ignore[arg-type]  # fmt: skip


def train_with_trl(arguments: argparse.Namespace, *, packing: bool) -> None:
    """Train with TRL's SFTTrainer; gradient checkpointing, its default, is off as it is elsewhere."""
    import tempfile

    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    # a packed row is as long as the longest text: fewer of them keep the tokens of a step near those of the others
    rows = max(1, arguments.batch // 4) if packing else arguments.batch
    settings = SFTConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=rows, max_steps=arguments.steps, packing=packing,
        learning_rate=arguments.lr, bf16=False, save_strategy="no", report_to="none", disable_tqdm=True,
        max_length=arguments.max_tokens, use_cpu=True, dataloader_pin_memory=False, gradient_checkpointing=False,
        train_sampling_strategy="sequential",
    )  # fmt: skip
    SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32), args=settings,
        processing_class=AutoTokenizer.from_pretrained(arguments.model),
        train_dataset=Dataset.from_list(read_rows(arguments.data)),
    ).train()  # fmt: skip


def trl(arguments: argparse.Namespace) -> None:
    """W1 with TRL."""
    train_with_trl(arguments, packing=False)


def trl_packing(arguments: argparse.Namespace) -> None:
    """W1 with TRL, rows packed."""
    train_with_trl(arguments, packing=True)


KINDS: dict[str, Callable[[argparse.Namespace], None]] = {
    each.__name__: each
    for each in (plain, trainer, trainer_grouped, lightning, trl, trl_packing, labels_plain, labels_trainer)
}


def main() -> None:
    """Train as the peer does that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=list(KINDS))
    add_training_arguments(parser)
    arguments = parser.parse_args(sys.argv[1:])
    KINDS[arguments.kind](arguments)


if __name__ == "__main__":
    main()
