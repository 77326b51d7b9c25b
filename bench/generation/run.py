"""Answers to many prompts: transformers' `generate` on padded batches sorted by length, against rows that are refilled.

    python bench/generation/run.py [ROUNDS] [PER CENT]
    python bench/generation/run.py [ROUNDS] --run RUN --prompts FILE [--rows 192]

Without `--run` a Llama of 15 million random weights; 192 prompts of 4 to 120 tokens (log-normal, median 40); answers of
at most 64 tokens that end when one of the last PER CENT of the vocabulary comes.  With it the model of a run, asked the
first rows of a file as `tunelab predict` asks them, and twice as a mixture, as `tunelab ensemble` does.

One thread, 32-bit, greedy; the ways take turns in one process.  `generate` gets batches of 32 prompts of like length;
refilling has as many rows, and as many as its default budget gives.  What `generate` cannot do, a mixture, goes through
the same batches one after the other.  Processor time leaves out what other processes take.  Answers are compared token
by token; those of `tunelab predict` as text.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

from tunelab.data.readers import read_records
from tunelab.ensemble.model_mixture import MixtureModel
from tunelab.generation.decode import cut_at_stop, decode, decode_with_cache
from tunelab.generation.prediction import encode_prompts, predict_window, predict_windows
from tunelab.models.unpadded_attention import PlainAttention
from tunelab.training.load_run import TrainedRun, load_run

VOCABULARY, ROWS, PROMPTS, LONGEST = 16000, 32, 192, 120
Answers = list[Any]


@dataclass
class Work:
    """What is answered.

    Attributes:
        model: A causal language model.
        prompts: Token ids.
        stop: Ids that end an answer.
        new: Longest answer, in tokens.
    """

    model: Any
    prompts: list[list[int]]
    stop: list[int]
    new: int

    def batches(self) -> list[list[int]]:
        """Places of prompts of like length, longest first."""
        order = sorted(range(len(self.prompts)), key=lambda place: -len(self.prompts[place]))
        return [order[start : start + ROWS] for start in range(0, len(order), ROWS)]


def random_work(per_cent: int) -> Work:
    """Weights so far from zero that answers differ and end at every length, and random prompts of uneven length."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=288, intermediate_size=768, num_hidden_layers=6, num_attention_heads=6,
        max_position_embeddings=512, pad_token_id=0, bos_token_id=2, eos_token_id=3, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    for weight in model.parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=0.08)
    draw = torch.Generator().manual_seed(0)
    lengths = (40 * torch.exp(0.7 * torch.randn(PROMPTS, generator=draw))).long().clamp(4, LONGEST).tolist()
    prompts = [torch.randint(4, VOCABULARY - 1000, (length,), generator=draw).tolist() for length in lengths]
    return Work(model.eval(), prompts, list(range(VOCABULARY - VOCABULARY * per_cent // 100, VOCABULARY)), 64)


def work_of_run(run: TrainedRun, records: Sequence[Any]) -> Work:
    """The model of a run and the prompts that it gets."""
    task: Any = run.task
    prompts, _ = encode_prompts(run, records)
    return Work(run.model, [list(prompt.ids) for prompt in prompts], list(task.template.stop_ids), task.max_new_tokens)


def with_generate(work: Work) -> Answers:
    """Answers of transformers, batch after batch of prompts of like length."""
    answers: Answers = [[] for _ in work.prompts]
    settings = GenerationConfig(
        max_new_tokens=work.new, do_sample=False, eos_token_id=work.stop, pad_token_id=work.stop[0]
    )
    for places in work.batches():
        batch = [work.prompts[place] for place in places]
        width = max(map(len, batch))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in batch])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch])
        with PlainAttention(work.model):
            generated = work.model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
        for place, row in zip(places, generated[:, width:].tolist(), strict=True):
            answers[place] = cut_at_stop(row, work.stop)
    return answers


def with_batches(work: Work) -> Answers:
    """The same through a cache of our own, which a mixture has too."""
    answers: Answers = [[] for _ in work.prompts]
    for places in work.batches():
        with torch.no_grad(), PlainAttention(work.model):
            rows = decode_with_cache(work.model, [work.prompts[place] for place in places], work.stop, work.new, None)
        for place, row in zip(places, rows, strict=True):
            answers[place] = cut_at_stop(row, work.stop)
    return answers


def with_refilling(work: Work, rows: int | None = None) -> Answers:
    """Answers of TuneLab; with as many rows as `generate` has, or as many as its budget allows."""
    budget = {} if rows is None else {"budget": rows * (max(map(len, work.prompts)) + work.new)}
    answers = decode(work.model, work.prompts, stop=work.stop, max_new_tokens=work.new, **budget)
    return [answer.ids for answer in answers]


def with_predict(run: TrainedRun, records: Sequence[Any]) -> Answers:
    """Texts of `tunelab predict`, records read and templates rendered."""
    windows = predict_windows(lambda rows: predict_window(run, rows, run.settings.micro_tokens), records)
    return [answer["prediction"] for window in windows for answer in window]


def compare(name: str, ways: dict[str, Callable[[], Answers]], rounds: int) -> float:
    """Print rows a second of each way in each round, and how many times those of the first the others give.

    Returns:
        The last of these ratios.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, Answers] = {}
    for number in range(rounds):
        for way in [*ways] if number % 2 == 0 else [*ways][::-1]:
            began = time.process_time()
            answers[way] = ways[way]()
            seconds[way].append(time.process_time() - began)
        count = len(answers[way])
        print("  ".join(f"{way} {count / times[-1]:.1f} rows/s" for way, times in seconds.items()), flush=True)
    first, *others = ways
    lengths = [len(answer) for answer in answers[first]]
    print(f"{name}: answers of {sum(lengths) / count:.1f} tokens on average, {max(lengths)} at most")
    for way in others:
        same = sum(one == other for one, other in zip(answers[way], answers[first], strict=True))
        ratios = [slow / fast for slow, fast in zip(seconds[first], seconds[way], strict=True)]
        told = f"; {same} of {count} answers are the same" if isinstance(answers[way][0], list) else ""
        print(f"{way}: {median(ratios):.2f} times as many rows a second{told}", flush=True)
    return median(ratios)


def main() -> int:
    """Print a line a round, and the medians; 1 where refilling falls short of what is promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    parser.add_argument("per_cent", type=int, nargs="?", default=3)
    parser.add_argument("--at-least", type=float, default=0.0, help="ratio that refilling must reach")
    parser.add_argument("--run", help="folder of a run on instructions")
    parser.add_argument("--prompts", help="file of records that it answers")
    parser.add_argument("--rows", type=int, default=PROMPTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.run is None:
        work = random_work(given.per_cent)
        ways = {
            "generate": lambda: with_generate(work),
            f"refilled, {ROWS} rows": lambda: with_refilling(work, ROWS),
            "refilled": lambda: with_refilling(work),
        }
        ratio = compare("random weights", ways, given.rounds)
        if ratio < given.at_least:
            print(f"{ratio:.2f} times generate, at least {given.at_least} is promised")
        return int(ratio < given.at_least)
    run, records = load_run(given.run), read_records(given.prompts).rows[: given.rows]
    work = work_of_run(run, records)
    if len(work.prompts) < len(records):
        raise SystemExit(f"the run can use {len(work.prompts)} of {len(records)} records; name a file that fits it")
    ways = {
        "generate": lambda: with_generate(work),
        "refilled": lambda: with_refilling(work),
        "predict": lambda: with_predict(run, records),
    }
    compare("the run", ways, given.rounds)
    mixture = Work(MixtureModel([work.model, work.model], [0.5, 0.5]), work.prompts, work.stop, work.new)
    compare(
        "mixture", {"batches": lambda: with_batches(mixture), "refilled": lambda: with_refilling(mixture)}, given.rounds
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
