"""The cost of monitoring: processor time of steps on the starter, with everything off, as by default, and all on.

    python bench/monitoring/run.py

The three take turns, round by round of one and the same training each, and the least that a step took in any round
counts: processor time leaves out what other processes take, but not that they empty the caches.  Expect: the default
below 3 per cent.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support.tiny_runs import settings  # noqa: E402  # the composer of the tests
from tunelab.training.run import fine_tune  # noqa: E402

NAMES = ("throughput", "memory", "spikes", "layers", "dead_units")
KINDS = {
    "off": [f"callbacks.{name}=false" for name in NAMES],
    "default": [],
    "all": ["callbacks.activations=true"],
}
BASE = ["model=starter", "data=starter", "logger=none", "trainer.enable_progress_bar=false", "test=false", "save=false"]
BASE += ["eval.base=false", "eval.generate=false", "max_epochs=1", "max_steps=60", "callbacks.train_eval_rows=0"]
ROUNDS = 5


class Clock(Callback):
    """Processor time of each step from the tenth on, from one to the next, without validation."""

    def __init__(self) -> None:
        self.since, self.seconds = 0.0, list[float]()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        now = time.process_time()
        if trainer.global_step > 10:
            self.seconds.append(now - self.since)
        self.since = time.process_time()


def steps(kind: str) -> list[float]:
    """The seconds of each step of one training."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        fine_tune(settings(*BASE, *KINDS[kind]), Path(folder) / "run", callbacks=[clock])
    return clock.seconds


def least(rounds: list[list[float]]) -> float:
    """Milliseconds of a step: the mean over the steps of the least that each took in any round."""
    return 1000 * mean(min(times) for times in zip(*rounds, strict=True))


def main() -> None:
    """Print a table."""
    found: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    for turn in range(ROUNDS):
        for kind in [*KINDS][turn % 3 :] + [*KINDS][: turn % 3]:
            found[kind].append(steps(kind))
    for kind, rounds in found.items():
        extra = [
            least(rounds[:left] + rounds[left + 1 :]) / least(found["off"][:left] + found["off"][left + 1 :]) - 1
            for left in range(ROUNDS)
        ]
        spread = f"{min(extra):+.1%} to {max(extra):+.1%} with a round left out"
        print(f"{kind:8} {least(rounds):6.2f} ms a step  {least(rounds) / least(found['off']) - 1:+.1%} ({spread})")


if __name__ == "__main__":
    main()
