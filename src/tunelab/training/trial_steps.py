"""A few real training steps on a model that is put back afterwards, and their speed."""

import gc
import random
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader
from transformers import PreTrainedModel
from typing_extensions import override

from tunelab.data.examples import Batch
from tunelab.errors import Diverged, first_line
from tunelab.language.translation import translate
from tunelab.models.device_placement import select_training_device
from tunelab.training.components import RunComponents, build_datamodule
from tunelab.training.module import FineTuner
from tunelab.training.trainer import build_trainer

SPEED_STEPS = 5


@dataclass(frozen=True)
class TrainingSpeed:
    """Times and token counts of the trial steps.

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


class StepTimer(L.Callback):
    """Notes seconds and tokens of each step; waits for the device, so that the seconds are real."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.tokens: list[int] = []
        self.since = 0.0

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        synchronize(pl_module.device)
        self.since = time.perf_counter()

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        synchronize(pl_module.device)
        self.seconds.append(time.perf_counter() - self.since)
        self.tokens.append(sum(int(micro.lengths.sum()) for micro in batch.micro_batches))


def synchronize(device: torch.device) -> None:
    """Let a GPU finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_speed(components: RunComponents, module: FineTuner) -> TrainingSpeed:
    """Train the first steps of the run on one device, without validation; the model is changed by it."""
    clock, device = StepTimer(), select_training_device(str(components.settings.trainer.accelerator))
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    fault = ""
    try:
        run_trial_steps(components, module, SPEED_STEPS, [clock])
    except Diverged as error:
        fault = str(error)
    except torch.OutOfMemoryError as error:
        fault = first_line(error)
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return TrainingSpeed(device_name(device), clock.seconds, clock.tokens, memory, fault)


def device_name(device: torch.device) -> str:
    """A device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return (
        translate("cpu, {threads} thread{value}", threads=threads, value="s" * (threads != 1))
        if device.type == "cpu"
        else device.type
    )


def run_trial_steps(
    components: RunComponents,
    module: FineTuner,
    count: int,
    callbacks: Sequence[Callback],
    steps: Sequence[Batch] | None = None,
) -> None:
    """Train with everything that is set, on one device, without validation, checkpoint or tracker; nothing is written.

    Args:
        components: What the run works with.
        module: Its training step; the model in it is changed, so do this inside `preserve_model`.
        count: Optimizer steps at most; epochs follow each other until then.
        callbacks: What watches, and may stop earlier.
        steps: What to train on; None takes the run's own order.

    Raises:
        Diverged: If the loss or a weight became NaN or Inf.
    """
    # a step is the same for any number of devices
    alone = replace(components.settings.trainer, devices=1, num_nodes=1, strategy="auto")
    quiet = replace(alone, enable_progress_bar=False, limit_val_batches=0)
    settings = replace(components.settings, max_steps=count, max_epochs=-1, trainer=quiet)
    dataset: Any = None if steps is None else list(steps)  # a list of its own is what DataLoader takes for a data set
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*have no `val_dataloader`")  # on purpose
        trainer = build_trainer(settings, Path(folder), callbacks, [], checkpoints=False)
        try:
            if dataset is None:
                trainer.fit(module, datamodule=build_datamodule(components))
            else:
                trainer.fit(module, DataLoader(dataset, batch_size=None, collate_fn=lambda step: step))
        finally:
            module.epoch_loss.reset()
            module.trainer = None


@contextmanager
def preserve_model(model: PreTrainedModel) -> Iterator[None]:
    """Within this block a model may be trained; after it, nothing of that is left.

    Put back bit by bit: weights that learn, buffers, the type of them all, which weights learn, gradients (none), the
    training mode of each module, the attention it uses, and the generators of Python, NumPy and PyTorch.  It takes as
    much memory as the weights that learn.
    """
    kept: list[tuple[torch.Tensor, torch.Tensor]]
    kept = [(weight, weight.detach().clone()) for weight in model.parameters() if weight.requires_grad]
    kept += [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    learns = [(weight, weight.requires_grad) for weight in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    attention, kind = model.config._attn_implementation, model.dtype
    with preserve_random_state():
        try:
            yield
        finally:
            if model.dtype != kind:  # trained in 64 bit
                model.to(kind)  # type: ignore[arg-type]  # transformers widens the signature
            with torch.no_grad():
                for tensor, before in kept:
                    tensor.copy_(before)
            for weight, before_that in learns:
                weight.requires_grad_(before_that)
                weight.grad = None
            for module, mode in modes:
                module.training = mode
            if model.config._attn_implementation != attention:
                model.set_attn_implementation(attention)


@contextmanager
def preserve_random_state() -> Iterator[None]:
    """Within this block random numbers may be drawn and generators seeded; after it, all stand where they stood."""
    python, numbers = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)
