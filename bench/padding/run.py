"""The time saved on a CPU by splitting padded rows into more passes: processor time of a step, with and without.

    python bench/padding/run.py messages.csv text label

The two take turns, a fresh training each; processor time leaves out what other processes take.  Needs the extra
`minilm`.

Measured with 3,612 training messages of the SMS Spam Collection, batches of 32, one thread (2026-11-26): 963 ms a step
against 2,271 ms, 2.28 times as fast (three rounds: 2.28, 2.40, 2.20).
"""

import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from support.tiny_runs import settings  # noqa: E402  # the composer of the tests
from tunelab.training import components  # noqa: E402
from tunelab.training.run import fine_tune  # noqa: E402

FIRST, LAST, ROUNDS = 3, 15, 3  # steps between which time is taken, and how often
COST = dict(components.PASS_COST)


class Clock(Callback):
    """Processor time between two steps."""

    began = seconds = 0.0

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == FIRST:
            self.began = time.process_time()
        elif trainer.global_step == LAST:
            self.seconds = time.process_time() - self.began


def seconds(words: list[str], *, split: bool) -> float:
    """Processor time of one step."""
    components.PASS_COST = COST if split else {}
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        fine_tune(settings(*words), Path(folder) / "run", callbacks=[clock])
    return clock.seconds / (LAST - FIRST)


def main() -> None:
    """Print a line a round, and the median of the ratios."""
    file, text, label = sys.argv[1:]
    torch.set_num_threads(1)
    words = [
        "model=minilm", "data=classification", f"data.train={file}", f"data.text={text}", f"data.label={label}",
        "batch_size=32", f"max_steps={LAST}", "logger=none", "test=false", "save=false", "trainer.limit_val_batches=1",
        "trainer.enable_progress_bar=false", "trainer.accelerator=cpu", "callbacks.train_eval_rows=0",
    ]  # fmt: skip
    ratios = []
    for turn in range(ROUNDS):
        found = {split: seconds(words, split=split) for split in ((True, False) if turn % 2 else (False, True))}
        ratios.append(found[False] / found[True])
        print(f"filled {1000 * found[False]:.0f} ms, split {1000 * found[True]:.0f} ms a step: {ratios[-1]:.2f} times")
    print(f"median {median(ratios):.2f} times as fast")


if __name__ == "__main__":
    main()
