"""What each option that makes room saves and costs: peak memory and processor time of the same training, by turns.

    python bench/memory/run.py            # every option, 3 rounds: some twenty minutes on one core
    python bench/memory/run.py --rounds 1 --only defaults,checkpointing

A Llama of 15 million parameters with a vocabulary of 16,000 learns 2,000 instructions (`bench/peers/workloads.py`),
16 rows a step in passes of up to 4,096 tokens, AdamW, one thread.  Each run is a fresh process; rounds go A B C, A B C.
Memory is the most that the process ever held, packages and data included.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PEERS = HERE.parent / "peers"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tunelab" / "bench" / "inputs"
WORDS = (
    "data=instruction data.train={inputs}/m15.jsonl model.path={inputs}/m15 batch_size=16 lr=1e-3 data.max_tokens=512 "
    "data.template=plain eval.base=false logger=csv"
)
OPTIONS = {  # name: what is set for it
    "all logits at once": "memory.chunked_loss=false",
    "defaults": "",
    "checkpointing": "memory.activation_checkpointing=true",
    "passes of 1024 tokens": "micro_tokens=1024",
    "lora": "adapter=lora",
    "lora and checkpointing": "adapter=lora memory.activation_checkpointing=true",
    "steps in the backward pass": "memory.step_in_backward=true trainer.gradient_clip_val=0",
    "4 rows a step": "memory.activation_checkpointing=true batch_size=4",
    "4 rows a step and steps in the backward pass": (
        "memory.activation_checkpointing=true batch_size=4 memory.step_in_backward=true trainer.gradient_clip_val=0"
    ),
    "lion": "optimizer=lion",
    "sgd": "optimizer=sgd",
}
STEPS_HEARD = 58  # of a step in the backward pass: the probe hears that of each of 57 weights, and the end


def measure(option: str, steps: int) -> dict[str, Any]:
    """The figures of one run in a fresh process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    with tempfile.TemporaryDirectory() as folder:
        words = [*WORDS.format(inputs=CACHE).split(), *OPTIONS[option].split(), f"hydra.run.dir={folder}/run"]
        heard = STEPS_HEARD if "step_in_backward=true" in OPTIONS[option] else 1
        probe = [
            str(PEERS / "probe.py"),
            "--vocab",
            "16000",
            "--skip",
            str(3 * heard),
            "--steps",
            str(steps * heard),
            "--",
        ]
        command = [sys.executable, *probe, str(ROOT / "train.py"), *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("BENCH ")), None)
    if line is None:
        raise SystemExit(f"{option}: {(done.stdout + done.stderr)[-2000:]}")
    figures: dict[str, Any] = json.loads(line.removeprefix("BENCH "))
    return {**figures, "cpu_ms_per_step": figures["cpu_ms_per_step"] * heard}


def median(rows: list[dict[str, Any]], key: str) -> float:
    """The median of a figure over rounds."""
    return statistics.median(float(row[key]) for row in rows)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=13, help="of a run; the first three are not timed")
    parser.add_argument("--only", default=",".join(OPTIONS), help="options, by comma")
    arguments = parser.parse_args()
    if not (CACHE / "labels.jsonl").exists():
        subprocess.run([sys.executable, str(PEERS / "workloads.py"), str(CACHE)], check=True)
    chosen = [name for name in OPTIONS if name in arguments.only.split(",")]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    for number in range(arguments.rounds):
        for name in chosen:
            rows[name].append(measure(name, arguments.steps))
            print(number, name, json.dumps(rows[name][-1]), flush=True)
    first = chosen[0]
    print("\n| option | peak memory, MiB | less than the first | processor time of a step, ms | times the first |")
    print("|---|---|---|---|---|")
    for name in chosen:
        memory, time = median(rows[name], "peak_rss_mib"), median(rows[name], "cpu_ms_per_step")
        pairs = zip(rows[name], rows[first], strict=True)
        ratio = statistics.median(one["cpu_ms_per_step"] / other["cpu_ms_per_step"] for one, other in pairs)
        saved = median(rows[first], "peak_rss_mib") - memory
        print(f"| {name} (`{OPTIONS[name]}`) | {memory:.0f} | {saved:.0f} | {time:.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
