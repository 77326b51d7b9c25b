"""What a trial costs beside its training: as a new process, as a fork, and within the searching process.

    python bench/search/trial_start.py --rounds 3      # about four minutes a round

Each kind does a search of 1 and one of 4 trials of the same few steps on one thread, by turns.  A third of the
difference is what one trial costs, without what a search costs once.  What it costs inline is training and search;
the rest is its start.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
KINDS = {
    "inline": ["search.isolation=inline"],
    "new process": ["search.fork=false"],
    "fork": ["search.fork=true"],
    "new process, 2 at a time": ["search.fork=false", "search.parallel_trials=2"],
    "fork, 2 at a time": ["search.fork=true", "search.parallel_trials=2"],
}
TRAINING = [
    *("model=scratch", "model.depth=1", "model.width=32", "model.heads=2", "data.limit=200", "max_steps=5"),
    *("logger=csv", "eval.generate=false", "eval.test_rows=8", "eval.base=false", "search.test_best=false"),
    *("search=random", "lr=interval(1e-4,1e-2)"),
]
FEW, MANY = 1, 4  # trials


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is printed")
    rounds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    for _ in range(parser.parse_args().rounds):
        for kind, words in KINDS.items():
            few, many = (time_search([*words, f"search.trials={trials}"]) for trials in (FEW, MANY))
            rounds[kind].append(tuple((b - a) / (MANY - FEW) for a, b in zip(few, many, strict=True)))  # type: ignore[arg-type]
    print(f"load of this machine in the last five minutes: {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores")
    for kind, spent in rounds.items():
        wall, busy = zip(*spent, strict=True)
        print(
            f"{kind}: {median(wall):.2f} s a trial by the clock, {median(busy):.2f} s of the processor "
            f"({min(busy):.2f} to {max(busy):.2f})"
        )


def time_search(words: list[str]) -> tuple[float, float]:
    """Seconds of a search by the clock and of the processor, its trials included."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, str(ROOT / "train.py"), "-m", *TRAINING, *words, f"hydra.sweep.dir={place}/study"]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # on a busy machine threads wait for each other, and count
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT, env=one_thread)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{words} ended with {status}")
        return time.perf_counter() - began, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
