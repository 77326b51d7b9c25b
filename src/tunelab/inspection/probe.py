"""A few real training steps, thrown away: how fast they are and how much memory they take."""

import gc
import time
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from typing_extensions import override

from tunelab.assemble import Prepared
from tunelab.data.examples import Step
from tunelab.errors import Diverged
from tunelab.inspection.trial_steps import take_steps
from tunelab.module import FineTuner
from tunelab.reference import training_device

STEPS = 5


@dataclass(frozen=True)
class Speed:
    """What the steps showed.

    Attributes:
        device: Where they ran, in words.
        seconds: Of each step.
        tokens: Real tokens of each step.
        memory: Bytes at their largest; None on a CPU, where no allocator counts.
        fault: Why there is no speed; empty where all went well.
    """

    device: str
    seconds: list[float]
    tokens: list[int]
    memory: int | None
    fault: str = ""

    @property
    def tokens_per_second(self) -> float | None:
        """Over all steps but the first, which warms up; None without two of them."""
        return sum(self.tokens[1:]) / sum(self.seconds[1:]) if len(self.seconds) > 1 else None

    def expected(self, tokens: float) -> tuple[float, float, float] | None:
        """Seconds for so many tokens of training: by all steps, by the fastest and by the slowest of them."""
        if self.tokens_per_second is None:
            return None
        pairs = list(zip(self.tokens, self.seconds, strict=True))[1:]
        speeds = [count / seconds for count, seconds in pairs]
        return tokens / self.tokens_per_second, tokens / max(speeds), tokens / min(speeds)


class Clock(L.Callback):
    """Notes seconds and tokens of each step; waits for the device, so that the seconds are real."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.tokens: list[int] = []
        self.since = 0.0

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Step, batch_idx: int
    ) -> None:
        wait(pl_module.device)
        self.since = time.perf_counter()

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Step, batch_idx: int
    ) -> None:
        wait(pl_module.device)
        self.seconds.append(time.perf_counter() - self.since)
        self.tokens.append(sum(int(micro.lengths.sum()) for micro in batch.micros))


def wait(device: torch.device) -> None:
    """Let a GPU finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def probe(prepared: Prepared, module: FineTuner) -> Speed:
    """Train the first steps of the run on one device, without validation; the model is changed by it."""
    clock, device = Clock(), training_device(str(prepared.settings.trainer["accelerator"]))
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    fault = ""
    try:
        take_steps(prepared, module, STEPS, [clock])
    except Diverged as found:
        fault = str(found)
    except torch.OutOfMemoryError as found:
        fault = str(found).splitlines()[0]
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return Speed(device_name(device), clock.seconds, clock.tokens, memory, fault)


def device_name(device: torch.device) -> str:
    """A device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type
