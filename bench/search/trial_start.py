"""What a trial costs beside its training: as a new process, as a fork, and within the searching process.  The same of
a fold of a cross-validation and of a training of `tunelab confirm`.

    python bench/search/trial_start.py --rounds 3                   # about four minutes a round
    python bench/search/trial_start.py --peers-python .../python    # beside transformers' own ways of searching

Each kind does a search of 1 and one of 4 trials of the same few steps on one thread, by turns.  A third of the
difference is what one trial costs, without what a search costs once.  What it costs inline is training and search;
the rest is its start.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median

ROOT = Path(__file__).parents[2]
PEER = str(Path(__file__).with_name("trial_peers.py"))
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
RERUNS = {  # folds of a cross-validation and trainings of a confirmation; the value of search.fork
    "fold as new process": ("folds", "false"),
    "fold forked": ("folds", "true"),
    "confirmation as new process": ("confirm", "false"),
    "confirmation forked": ("confirm", "true"),
}
PEERS = ("Trainer.hyperparameter_search, one process", "Trainer, a new process for each trial")
FEW, MANY = 1, 4  # trials


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is printed")
    parser.add_argument("--only", default="", help="kinds, by comma")
    parser.add_argument("--peers-python", help="interpreter of an environment of bench/peers")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",") if arguments.only else [*KINDS, *RERUNS]
    rounds: dict[str, list[tuple[float, float]]] = {}
    for _ in range(arguments.rounds):
        for kind in chosen:
            if kind in RERUNS:
                rounds.setdefault(kind, []).append(time_rerun(*RERUNS[kind]))
                continue
            few, many = (time_search(KINDS[kind], trials) for trials in (FEW, MANY))
            rounds.setdefault(kind, []).append(per_trial(few, many))
        if arguments.peers_python:
            peer = [arguments.peers_python, PEER]
            few, many = (time_command([*peer, "search", "--trials", str(trials)]) for trials in (FEW, MANY))
            rounds.setdefault(PEERS[0], []).append(per_trial(few, many))
            rounds.setdefault(PEERS[1], []).append(time_command([*peer, "script"]))
    print(f"load of this machine in the last five minutes: {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores")
    for kind, spent in rounds.items():
        wall, busy = zip(*spent, strict=True)
        print(
            f"{kind}: {median(wall):.2f} s a trial by the clock, {median(busy):.2f} s of the processor "
            f"({min(busy):.2f} to {max(busy):.2f})"
        )


def per_trial(few: tuple[float, float], many: tuple[float, float]) -> tuple[float, float]:
    """Seconds of one more trial, of a search of few and one of many."""
    return (many[0] - few[0]) / (MANY - FEW), (many[1] - few[1]) / (MANY - FEW)


def time_search(words: list[str], trials: int) -> tuple[float, float]:
    """Seconds of a search by the clock and of the processor, its trials included."""
    with tempfile.TemporaryDirectory() as place:
        settings = [*TRAINING, *words, f"search.trials={trials}", f"hydra.sweep.dir={place}/study"]
        return time_command([sys.executable, str(ROOT / "train.py"), "-m", *settings])


def time_rerun(kind: str, fork: str) -> tuple[float, float]:
    """Seconds of one more fold (of 5 and of 2), or of one more training of a confirmation (of 8 and of 4)."""
    words = [*(word for word in TRAINING if not word.startswith(("search", "lr="))), f"search.fork={fork}"]
    train = [sys.executable, str(ROOT / "train.py")]
    with tempfile.TemporaryDirectory() as place:
        if kind == "folds":
            fold = [*train, *words]
            few, many = (time_command([*fold, f"cv.folds={n}", f"hydra.run.dir={place}/{n}"]) for n in (2, 5))
            return (many[0] - few[0]) / 3, (many[1] - few[1]) / 3
        study = ["-m", *words, "lr=7e-4,8e-4", "search.test_best=false", f"hydra.sweep.dir={place}/2"]
        time_command([*train, *study])
        shutil.copytree(f"{place}/2", f"{place}/4")
        confirm = [sys.executable, "-P", "-c", "from tunelab.cli.main import main; main()", "confirm", "--top", "1"]
        few, many = (time_command([*confirm, f"{place}/{seeds}", "--seeds", str(seeds)]) for seeds in (2, 4))
        return (many[0] - few[0]) / 4, (many[1] - few[1]) / 4


def time_command(command: list[str]) -> tuple[float, float]:
    """Seconds of a command by the clock and of the processor, all it starts included."""
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # on a busy machine threads wait for each other, and count
    began = time.perf_counter()
    before = getrusage(RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=ROOT, env=one_thread, check=False, text=True, capture_output=True)
    wall, after = time.perf_counter() - began, getrusage(RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
