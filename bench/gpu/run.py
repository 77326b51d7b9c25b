"""Training speed and memory on a GPU: TuneLab beside transformers' Trainer, same rows, same model, packed.

    python bench/gpu/run.py    # 0.5B and 1B, full and LoRA, 4,096 tokens: at most 8 minutes on an H100 or H200
    python bench/gpu/run.py --shapes 135m --methods full --words +optimizer.fused=true
    python bench/gpu/run.py --device cpu --shapes tiny --block 256 --steps 4 --skip 1   # tries the script out, no more

Each line is a training in a process of its own, written as soon as it is there; none starts once the minutes are
over, so that a cut run still tells.  Weights are random.  Both compute in bfloat16 over float32 weights with the
fused AdamW and clip at 1; the Trainer gets the same documents laid end to end in full blocks, so that it has no
padding to compute.

MFU is the arithmetic of PaLM (attention inside each document, the output head where a token is learned) over the best
rate of a large matrix product here.  "Foretold" is the peak that `tunelab inspect` gives.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SHAPES = {  # layers, width, inner width, heads, key heads, vocabulary: of models that people fine-tune
    "tiny": (2, 64, 128, 2, 1, 1536),
    "135m": (30, 576, 1536, 9, 3, 49152),
    "0.5b": (24, 896, 4864, 14, 2, 151936),
    "1b": (16, 2048, 8192, 32, 8, 128256),
}
WORDS = "red blue green gold grey pink teal plum sand rust".split()
BARS = {"mfu": 0.50, "speed": 1.3, "memory": 0.7}  # at 1b, full
TOKENS_PER_WORD = 3.15  # of WORDS, by the built-in tokenizer
PROBE_SECONDS = 180  # most that the measurement of the device itself may take
LEAST_SECONDS = 20  # with less time left no training is started
OVER = {"failed": "not started, the minutes are over"}


def make_model(folder: Path, shape: str, block: int) -> None:
    """A model of random weights with the built-in tokenizer, as a pretrained one would lie there."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tunelab.config.schema import PretrainedModelConfig
    from tunelab.models.load_model import load_tokenizer
    from tunelab.runs.console import silence_libraries

    silence_libraries()
    layers, width, inner, heads, keys, vocabulary = SHAPES[shape]
    tokenizer = load_tokenizer(PretrainedModelConfig(path="package:tunelab.starter/model"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=keys, max_position_embeddings=2 * block,
        tie_word_embeddings=True, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_rows(path: Path, tokens: float, longest: int) -> float:
    """Write instructions of so many tokens, and return how many one has on average.

    Lengths spread as real ones do, many short and few long; three quarters of each are the answer.
    """
    draw, lengths = random.Random(0), list[int]()
    with path.open("w", encoding="utf-8") as file:
        while sum(lengths) * TOKENS_PER_WORD < tokens:
            length = max(8, min(longest // 4, int(draw.lognormvariate(4.8, 0.8))))
            prompt, answer = (" ".join(draw.choices(WORDS, k=part)) for part in (length // 4, length * 3 // 4))
            file.write(json.dumps({"prompt": prompt, "completion": answer}) + "\n")
            lengths.append(length)
    return TOKENS_PER_WORD * sum(lengths) / len(lengths)


def measure(command: list[str], seconds: float) -> dict[str, Any]:
    """The figures of one process; `failed`, with its last line, where it printed none."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(
            [sys.executable, str(HERE / "measure.py"), *command],
            env=environment, capture_output=True, text=True, timeout=max(1.0, seconds), check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"failed": f"cut after {seconds:.0f} s"}
    lines = done.stdout.splitlines()
    line = next((line for line in reversed(lines) if line.startswith("BENCH ")), "")
    if line:
        return dict(json.loads(line.removeprefix("BENCH ")))
    return {"failed": (done.stderr.strip().splitlines() or lines or ["no output"])[-1][:300]}


def describe(row: Mapping[str, Any], peak: float) -> str:
    """One line of the table."""
    head = f"{row['shape']:5} {row['method']:5} {row['peer']:8}"
    if "failed" in row:
        return f"{head} failed: {row['failed']}"
    memory = "" if row["peak_gib"] is None else f"  {row['peak_gib']:6.2f} GiB"
    foretold = f"  foretold {row['foretold_gib']:.2f} GiB" if "foretold_gib" in row else ""
    return f"{head} {tokens_per_second(row):10,.0f} tokens/s  MFU {utilisation(row, peak):.3f}{memory}{foretold}"


def tokens_per_second(row: Mapping[str, Any]) -> float:
    """Real tokens a second."""
    return float(row["work"]["tokens"] / row["seconds"])


def utilisation(row: Mapping[str, Any], peak: float) -> float:
    """The useful arithmetic of the steps over what the device does in as long."""
    work, cost = row["work"], row["flops"]
    operations = sum(
        cost[factor] * work[of]
        for factor, of in (("per_token", "tokens"), ("per_pair", "pairs"), ("per_output", "outputs"))
    )
    return float(operations / row["seconds"] / peak)


def compare(ours: Mapping[str, Any], other: Mapping[str, Any], peak: float) -> str:
    """The ratios of two trainings, and the bars beside those that have one."""
    bars = BARS if (ours["shape"], ours["method"]) == ("1b", "full") else {}

    def said(name: str, value: float) -> str:
        return f"{value:.2f}" + (f" (bar {bars[name]})" if name in bars else "")

    parts = [f"{said('speed', tokens_per_second(ours) / tokens_per_second(other))} x the Trainer's tokens/s"]
    parts.append(f"MFU {said('mfu', utilisation(ours, peak))}")
    if ours["peak_gib"]:
        parts.append(f"{said('memory', ours['peak_gib'] / other['peak_gib'])} of its memory")
        parts.append(f"foretold {ours['foretold_gib'] / ours['peak_gib']:.2f} of the memory taken")
    return f"{ours['shape']} {ours['method']}: " + ", ".join(parts)


def main() -> int:
    """Train, print each line as it comes, then the ratios."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--shapes", nargs="+", choices=SHAPES, default=["1b", "0.5b"])
    reader.add_argument("--methods", nargs="+", choices=("full", "lora"), default=["full", "lora"])
    reader.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    reader.add_argument("--minutes", type=float, default=8.0, help="after which nothing is started, and all is cut")
    reader.add_argument("--words", nargs="*", default=[], help="further overrides of TuneLab")
    reader.add_argument("--output", type=Path, default=ROOT / "outputs" / "bench_gpu", help="folder of results.jsonl")
    helps = {
        "steps": (12, "of the optimizer"), "skip": (4, "steps before the clock starts"),
        "block": (4096, "tokens of a packed row"), "blocks": (4, "packed rows of a pass"),
        "accumulate": (2, "passes of a step"),
    }  # fmt: skip
    for name, (value, text) in helps.items():
        reader.add_argument(f"--{name}", type=int, default=value, help=text)
    given = reader.parse_args()
    until = time.monotonic() + 60 * given.minutes
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception ends the measuring process and its files too
    given.output.mkdir(parents=True, exist_ok=True)
    first = measure(["peak", "--device", given.device], PROBE_SECONDS)
    if "failed" in first:
        print(f"no measurement of the device: {first['failed']}")
        return 1
    print(
        f"{first['device']}, torch {first['torch']}, {first['peak_flops'] / 1e12:.1f} TFLOP/s in bfloat16", flush=True
    )
    return train_all(given, first, until)


def train_all(given: argparse.Namespace, first: Mapping[str, Any], until: float) -> int:
    """Every shape and method on both; 1 where nothing of ours came back."""
    sys.path[:0] = [str(ROOT / "src")]
    ours = list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as place:
        data, held_out = Path(place, "rows.jsonl"), Path(place, "held_out.jsonl")
        step_tokens = given.block * given.blocks * given.accumulate
        documents = max(1, round(step_tokens / make_rows(data, 1.5 * given.steps * step_tokens, given.block)))
        make_rows(held_out, given.block, given.block)
        shared = ["--data", str(data), "--held-out", str(held_out), "--documents", str(documents)]
        shared += ["--device", given.device]
        for name in ("steps", "skip", "block", "blocks", "accumulate"):
            shared += [f"--{name}", str(getattr(given, name))]
        for shape in given.shapes:
            folder = Path(place, shape)
            make_model(folder, shape, given.block)
            for method in given.methods:
                words = [*shared, "--model", str(folder), "--method", method]
                ours.append(train_pair(given, first, {"shape": shape, "method": method}, words, until))
    return 0 if any("failed" not in row for row in ours) else 1


def train_pair(
    given: argparse.Namespace, first: Mapping[str, Any], case: Mapping[str, str], words: list[str], until: float
) -> dict[str, Any]:
    """The figures of TuneLab's training; the Trainer's and their ratios are printed beside them, and all are kept."""
    pair = list[dict[str, Any]]()
    for peer, more in (("tunelab", given.words), ("trainer", [])):
        left = until - time.monotonic()
        row = {**case, "peer": peer, **(measure([peer, *more, *words], left) if left > LEAST_SECONDS else OVER)}
        if pair and "failed" not in row:
            row |= (
                {"flops": pair[0]["flops"]} if "flops" in pair[0] else {"failed": "nothing of TuneLab's to set beside"}
            )
        pair.append(row)
        with (given.output / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({**first, **row}) + "\n")
        print(describe(row, first["peak_flops"]), flush=True)
    if not any("failed" in row for row in pair):
        print(compare(pair[0], pair[1], first["peak_flops"]), flush=True)
    return pair[0]


if __name__ == "__main__":
    sys.exit(main())
