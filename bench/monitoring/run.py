"""What monitoring costs: processor time of steps on the starter, with everything off, as by default, and all on.

    python bench/monitoring/run.py

The three take turns, epoch by epoch of one and the same training each, so that whatever else the machine does hits all
alike; processor time leaves out what other processes take.  Expect: the default below 3 per cent.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from tiny import settings  # noqa: E402  # the composer of the tests
from tunelab.run import fine_tune  # noqa: E402

NAMES = ("throughput", "memory", "spikes", "layers", "dead_units")
KINDS = {
    "off": [f"callbacks.{name}=false" for name in NAMES],
    "default": [],
    "all": ["callbacks.activations=true"],
}
BASE = ["model=starter", "data=starter", "logger=none", "trainer.enable_progress_bar=false", "test=false", "save=false"]
BASE += ["eval.base=false", "eval.generate=false", "max_epochs=1", "max_steps=60", "callbacks.gap_rows=0"]
ROUNDS = 5


class Clock(Callback):
    """Processor time from the tenth step to the last, without validation."""

    def __init__(self) -> None:
        self.since, self.steps, self.seconds = 0.0, 0, 0.0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step == 10:
            self.since = time.process_time()
        elif trainer.global_step > 10:
            self.steps, self.seconds = trainer.global_step - 10, time.process_time() - self.since


def main() -> None:
    """Print a table."""
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for turn in range(ROUNDS):
        for kind in [*KINDS][turn % 3 :] + [*KINDS][: turn % 3]:
            clock = Clock()
            with tempfile.TemporaryDirectory() as folder:
                fine_tune(settings(*BASE, *KINDS[kind]), Path(folder) / "run", callbacks=[clock])
            found[kind].append(1000 * clock.seconds / clock.steps)
    for kind, times in found.items():
        ratios = [mine / plain - 1 for mine, plain in zip(times, found["off"], strict=True)]
        spread = f"{min(ratios):+.1%} to {max(ratios):+.1%}"
        print(f"{kind:8} {median(times):6.2f} ms a step  {median(ratios):+.1%} ({spread})")


if __name__ == "__main__":
    main()
