"""Random kills of a training, of one on two processes, and of a search: each must end as the undisturbed one did.

    python bench/soak/run.py --minutes 30 --seed 0

A round takes one of the three, starts it, and at a time drawn by chance sends SIGKILL, SIGTERM or SIGUSR1, or fills the
disk (a limit on the size of files, which the process meets as it writes a checkpoint).  It is started again and
disturbed again, up to five times, and then left to end.  Weights, predictions and scores of a training must equal the
undisturbed ones to the last bit, and the trials of a search theirs.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DISTURBANCES = ("SIGKILL", "SIGTERM", "SIGUSR1", "full disk")
MOST_DISTURBANCES = 5  # of one round
TIME_LIMIT = 600.0  # seconds after which an undisturbed process hangs
FILE_LIMIT = 40_000  # bytes: less than a checkpoint, more than any other file
WORDS = (
    "data=instruction data.train=train.jsonl data.validation=val.jsonl data.test=test.jsonl eval.generate=false "
    "model=scratch model.depth=2 model.width=64 model.heads=2 batch_size=8 lr=0.003 logger=csv trainer.accelerator=cpu "
    "trainer.enable_progress_bar=false regularization=dropout callbacks.memory=false save=false"
).split()
JOBS = {
    "training": [*WORDS, "max_epochs=6", "callbacks.save_every=4"],
    "training on two processes": [*WORDS, "max_epochs=3", "callbacks.save_every=4", "trainer.devices=2"],
    "search": ["-m", *WORDS, "max_epochs=2", "test=false", "lr=0.001,0.003,0.01", "search.test_best=false"],
}


def write_data(place: Path) -> None:
    """Sums with their answers, a file for each split."""
    chance = random.Random(0)
    for split, rows in (("train", 160), ("val", 24), ("test", 24)):
        lines = []
        for number in range(rows):
            a, b = chance.randrange(30), chance.randrange(30)
            lines.append(json.dumps({"prompt": f"{split} {number}: {a} plus {b}", "completion": str(a + b)}))
        (place / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


def start(words: Sequence[str], place: Path, *, small_files: bool = False) -> subprocess.Popen[bytes]:
    """Start `train.py`, in a group of processes of its own; its output is added to `output.txt`."""
    limits = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (FILE_LIMIT, resource.RLIM_INFINITY))
    with (place / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, ROOT / "train.py", *words],
            cwd=place,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=limits if small_files else None,  # noqa: PLW1509  # one thread here
        )


def end(process: subprocess.Popen[bytes]) -> int | None:
    """The exit status of a process that is left alone; None where it hangs, and is killed."""
    try:
        return process.wait(TIME_LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def words_of(job: str, folder: Path) -> list[str]:
    """The words that start a job, or go on with it."""
    if job == "search":
        return [*JOBS[job], f"hydra.sweep.dir={folder}"]
    if (folder / "config.yaml").is_file():
        return [f"resume={folder}"]
    return [*JOBS[job], f"hydra.run.dir={folder}"]


def outcome(job: str, folder: Path) -> Any:
    """What must not depend on disturbances: hashes and scores of a training, of a search each trial with its curve."""
    if job != "search":
        manifest = json.loads((folder / "run.json").read_text())
        return {name: manifest[name] for name in ("status", "best", "scores", "results")}
    lines = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    names = ("state", "params", "value", "curve")
    scores = [{k: v for k, v in line["scores"].items() if k.startswith(("val/", "train/loss"))} for line in lines]
    rows = [{**{name: line[name] for name in names}, "scores": own} for line, own in zip(lines, scores, strict=True)]
    return sorted(rows, key=lambda row: json.dumps(row["params"]))


def disturb(job: str, folder: Path, place: Path, seconds: float, chance: random.Random) -> tuple[str, int | None]:
    """Start a job, disturb it once at a time drawn by chance; how, and the exit status (None for a hang)."""
    how = chance.choice(DISTURBANCES)
    process = start(words_of(job, folder), place, small_files=how == "full disk")
    if how == "full disk":
        return how, end(process)
    try:
        process.wait(chance.uniform(0.1, 1.0) * seconds)
        return "ended before", process.returncode
    except subprocess.TimeoutExpired:
        pass
    number = getattr(signal, how)
    if number == signal.SIGKILL:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    return how, end(process)


def soak_round(
    job: str, expected: Any, place: Path, seconds: float, chance: random.Random
) -> tuple[list[str], str | None]:
    """What was done to a job, and what was wrong in the end; None where all is well."""
    folder, done = place / "disturbed", list[str]()
    shutil.rmtree(folder, ignore_errors=True)
    for _ in range(chance.randint(1, MOST_DISTURBANCES)):
        how, status = disturb(job, folder, place, seconds, chance)
        done.append(f"{how} -> {status}")
        if status is None:
            return done, f"hangs after {how}"
        if status == 0:
            break
        if status == 2:
            return done, f"exit status 2 after {how}"
    else:
        status = end(start(words_of(job, folder), place))
        if status != 0:
            return done, f"exit status {status} where it was left alone"
    return done, None if outcome(job, folder) == expected else "another result"


def main() -> int:
    """Soak for a while; prints a line for each round and a summary; exit status 1 where a round went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30, help="how long (30)")
    parser.add_argument("--seed", type=int, default=0, help="of the times and kinds of disturbances (0)")
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS), help="which of the three")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    chance, faults, kinds, rounds = random.Random(arguments.seed), 0, Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        write_data(place)
        expected, seconds = dict[str, Any](), dict[str, float]()
        for job in arguments.jobs:
            started = time.monotonic()
            folder = place / "undisturbed" / job.replace(" ", "_")
            if end(start(words_of(job, folder), place)) != 0:
                print((place / "output.txt").read_text()[-2000:])
                raise SystemExit(f"the undisturbed {job} failed")
            expected[job], seconds[job] = outcome(job, folder), time.monotonic() - started
            print(f"undisturbed {job}: {seconds[job]:.0f} s", flush=True)
        began = time.monotonic()
        while time.monotonic() - began < 60 * arguments.minutes:
            job = arguments.jobs[sum(rounds.values()) % len(arguments.jobs)]
            done, fault = soak_round(job, expected[job], place, seconds[job], chance)
            rounds[job] += 1
            kinds.update(entry.partition(" ->")[0] for entry in done)
            faults += fault is not None
            print(f"{job}: {', '.join(done)}: {fault or 'equal'}", flush=True)
            if fault:
                print((place / "output.txt").read_text(errors="replace")[-3000:], flush=True)
        spent = (time.monotonic() - began) / 60
    print(f"{sum(rounds.values())} rounds in {spent:.1f} minutes, seed {arguments.seed}: {faults} went wrong")
    print("; ".join(f"{job}: {count}" for job, count in rounds.items()))
    print("; ".join(f"{kind}: {count}" for kind, count in sorted(kinds.items())))
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
