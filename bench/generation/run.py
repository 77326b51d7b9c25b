"""Answers to many prompts: transformers' `generate` on padded batches sorted by length, against rows that are refilled.

    python bench/generation/run.py [ROUNDS] [PER CENT]

A Llama of 15 million random weights; 192 prompts of 4 to 120 tokens (log-normal, median 40); answers of at most 64
tokens that end when one of the last PER CENT of the vocabulary comes.  One thread, 32-bit, greedy; the ways take turns
in one process.  `generate` gets batches of 32 prompts of like length; refilling has as many rows, and as many as its
default budget gives.  Processor time leaves out what other processes take.  Answers are compared token by token.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

from tunelab.generation.decode import decode

VOCABULARY, ROWS, NEW, PROMPTS, LONGEST = 16000, 32, 64, 192, 120
STOP = list(range(VOCABULARY - VOCABULARY * int(sys.argv[2] if len(sys.argv) > 2 else 3) // 100, VOCABULARY))
Answers = list[list[int]]


def make_model() -> LlamaForCausalLM:
    """Weights so far from zero that answers differ and end at every length."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=288, intermediate_size=768, num_hidden_layers=6, num_attention_heads=6,
        max_position_embeddings=512, pad_token_id=0, bos_token_id=2, eos_token_id=3, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    for weight in model.parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=0.08)
    return model.eval()


def make_prompts() -> list[list[int]]:
    """Random tokens of uneven length."""
    draw = torch.Generator().manual_seed(0)
    lengths = (40 * torch.exp(0.7 * torch.randn(PROMPTS, generator=draw))).long().clamp(4, LONGEST).tolist()
    return [torch.randint(4, VOCABULARY - 1000, (length,), generator=draw).tolist() for length in lengths]


def with_generate(model: LlamaForCausalLM, prompts: list[list[int]]) -> Answers:
    """Answers of transformers, batch after batch of prompts of like length."""
    order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
    answers: Answers = [[] for _ in prompts]
    settings = GenerationConfig(max_new_tokens=NEW, do_sample=False, eos_token_id=STOP, pad_token_id=0)
    for start in range(0, len(order), ROWS):
        batch = [prompts[place] for place in order[start : start + ROWS]]
        width = max(map(len, batch))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in batch])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch])
        generated = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
        for place, row in zip(order[start : start + ROWS], generated[:, width:].tolist(), strict=True):
            ends = [at for at, token in enumerate(row) if token in STOP]
            answers[place] = row[: ends[0]] if ends else row
    return answers


def with_refilling(model: LlamaForCausalLM, prompts: list[list[int]], rows: int | None) -> Answers:
    """Answers of TuneLab; with as many rows as `generate` has, or as many as its budget allows."""
    budget = {} if rows is None else {"budget": rows * (LONGEST + NEW)}
    return [answer.ids for answer in decode(model, prompts, stop=STOP, max_new_tokens=NEW, **budget)]


def main() -> None:
    """Print a line a round, and the medians."""
    torch.set_num_threads(1)
    model, prompts = make_model(), make_prompts()
    ways: dict[str, Callable[[], Answers]] = {
        "generate": lambda: with_generate(model, prompts),
        f"refilled, {ROWS} rows": lambda: with_refilling(model, prompts, ROWS),
        "refilled": lambda: with_refilling(model, prompts, None),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, Answers] = {}
    for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        for name in [*ways] if number % 2 == 0 else [*ways][::-1]:
            began = time.process_time()
            answers[name] = ways[name]()
            seconds[name].append(time.process_time() - began)
        print("  ".join(f"{name} {PROMPTS / times[-1]:.1f} rows/s" for name, times in seconds.items()), flush=True)
    lengths = [len(answer) for answer in answers["generate"]]
    print(f"answers: mean {sum(lengths) / PROMPTS:.1f} tokens, {sum(n == NEW for n in lengths)} of them cut at {NEW}")
    for name in [*ways][1:]:
        same = sum(one == other for one, other in zip(answers[name], answers["generate"], strict=True))
        ratios = [slow / fast for slow, fast in zip(seconds["generate"], seconds[name], strict=True)]
        print(f"{name}: {median(ratios):.2f} times as many rows a second; {same} of {PROMPTS} answers are the same")


if __name__ == "__main__":
    main()
