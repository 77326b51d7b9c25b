"""Twenty steps of a run leave the weights that a bare PyTorch loop leaves, written here from nothing of ours."""

from collections.abc import Iterator
from math import cos, pi
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from support.tiny_runs import QUIET, settings, write
from tunelab.data.batching import shuffled_order
from tunelab.runs.checkpoint import read_checkpoint
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.run import fine_tune

STEPS, BATCH, RATE, WARMUP, FLOOR, DECAY, CLIP, SEED = 20, 6, 3e-3, 4, 0.1, 0.05, 1.0, 3
ROWS = 44  # the last step of an epoch has two rows only


def records() -> list[dict[str, Any]]:
    """Prompts and answers whose lengths have nothing to do with each other; every fourth has two exchanges."""
    words = "red blue green gold grey pink teal plum sand rust".split()
    found = []
    for i in range(ROWS):
        asked, answer = " ".join(words[: i * 7 % 9 + 1]), " ".join(words[i % 10 :] * (i * 5 % 4 + 1)) + f" {i}"
        turns = [{"role": "user", "content": f"list {i}: {asked}"}, {"role": "assistant", "content": answer}]
        if i % 4 == 0:
            turns += [{"role": "user", "content": "and now"}, {"role": "assistant", "content": words[i % 10]}]
        found.append({"messages": turns})
    return found


def base(folder: Path) -> Path:
    """The built-in tokenizer and a small random model, saved as any model is."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from tunelab.config.resource_paths import resolve_path

    tokenizer = AutoTokenizer.from_pretrained(resolve_path("package:tunelab.starter/model"))
    torch.manual_seed(5)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, tie_word_embeddings=True, **size)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rate(step: int) -> float:
    """Linear warm-up whose first step already trains, then half a cosine down to the floor."""
    if step < WARMUP:
        return RATE * (step + 1) / WARMUP
    done = (step - WARMUP) / (STEPS - WARMUP)
    return RATE * (FLOOR + (1 - FLOOR) * 0.5 * (1 + cos(pi * done)))


def batches(tokenizer: Any) -> Iterator[dict[str, torch.Tensor]]:
    """Padded batches as transformers itself masks them: ids, attention mask, labels."""
    rows = [
        tokenizer.apply_chat_template(row["messages"], return_dict=True, return_assistant_tokens_mask=True)
        for row in records()
    ]
    pad, epoch = 7, 0  # any id does: padding is by mask
    while True:
        order = shuffled_order(ROWS, seed=SEED, epoch=epoch)
        for start in range(0, ROWS, BATCH):
            chosen = [rows[i] for i in order[start : start + BATCH]]
            width = max(len(row["input_ids"]) for row in chosen)
            yield {
                "input_ids": torch.tensor([r["input_ids"] + [pad] * (width - len(r["input_ids"])) for r in chosen]),
                "attention_mask": torch.tensor([[int(t < len(r["input_ids"])) for t in range(width)] for r in chosen]),
                "labels": torch.tensor(
                    [
                        [
                            r["input_ids"][t] if t < len(r["input_ids"]) and r["assistant_masks"][t] else -100
                            for t in range(width)
                        ]
                        for r in chosen
                    ]
                ),
            }
        epoch += 1


def bare_loop(folder: Path) -> tuple[PreTrainedModel, list[float]]:
    """The textbook: forward, transformers' own loss, backward, clip, step."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.999), eps=1e-8)
    losses: list[float] = []
    for step, batch in zip(range(STEPS), batches(tokenizer), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        learned = int((batch["labels"][:, 1:] != -100).sum())
        loss = model(**batch, use_cache=False, num_items_in_batch=learned).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return model, losses


@pytest.mark.parametrize("micro_tokens", [150, 4096], ids=["many micro-batches", "one micro-batch"])
def test_twenty_steps_of_adamw_end_at_the_weights_of_a_bare_loop(tmp_path: Path, micro_tokens: int) -> None:
    # Given a model on disk and a file of uneven conversations
    model, data = base(tmp_path / "model"), write(tmp_path / "talks.jsonl", records())

    # When a run takes twenty steps, through the third pass over the data
    given = [
        "data=instruction", f"data.train={data}", "data.split.validation=0", "data.split.test=0", *QUIET,
        "model=pretrained", f"model.path={model}", "optimizer=adamw", f"lr={RATE}", f"batch_size={BATCH}",
        f"max_steps={STEPS}", "max_epochs=3", f"micro_tokens={micro_tokens}", "scheduler=cosine",
        f"scheduler.warmup={WARMUP}", f"scheduler.min_lr_ratio={FLOOR}", f"regularization.weight_decay={DECAY}",
        f"trainer.gradient_clip_val={CLIP}", "trainer.precision=32-true", f"seed={SEED}",
        "trainer.log_every_n_steps=1", "save=false",
    ]  # fmt: skip
    fine_tune(settings(*given), tmp_path / "run")

    # Then losses, rates and weights are those of the bare loop
    wanted, losses = bare_loop(model)
    curve = [row for row in RunDirectory(tmp_path / "run").read_curves() if "train/lr" in row]
    assert [row["train/lr"] for row in curve] == pytest.approx([rate(step) for step in range(STEPS)], rel=1e-6)
    assert [row["train/loss"] for row in curve] == pytest.approx(losses, abs=1e-5)
    ours = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["state_dict"]
    start = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).state_dict()
    for name, weight in wanted.state_dict().items():
        torch.testing.assert_close(ours[f"model.{name}"], weight, rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
        assert (weight - start[name]).abs().max() > 1e-3  # and all of them moved far more than that


def test_the_loop_is_no_copy_of_an_order_that_never_changes() -> None:
    # Given the documented order: a function of seed and epoch
    orders = {tuple(shuffled_order(ROWS, seed=SEED, epoch=epoch)) for epoch in range(3)}

    assert len(orders) == 3 and all(sorted(order) == list(range(ROWS)) for order in orders)
    assert shuffled_order(5, seed=0, epoch=0) == shuffled_order(5, seed=0, epoch=0)
