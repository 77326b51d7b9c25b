"""Throughput, FLOPs utilisation and memory of training, logged in the steps that Lightning logs."""

import os
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from transformers import PreTrainedModel
from typing_extensions import override

from tunelab.data.examples import Batch
from tunelab.models.flops import StepFlops, peak_flops, step_flops
from tunelab.training.processes import row_share


def is_log_step(trainer: Trainer) -> bool:
    """Whether what is logged in the present step is passed on, by Lightning's own count."""
    every = int(getattr(trainer, "log_every_n_steps", 0))  # set by its logger connector, so not declared
    return every > 0 and (trainer.fit_loop.epoch_loop._batches_that_stepped + 1) % every == 0


_MAX_PENDING_LENGTHS = 256  # micro-batches kept before their lengths are added up
_MATMUL_TYPES = {"bf16": torch.bfloat16, "16": torch.float16, "transformer-engine": torch.bfloat16}


class Throughput(Callback):
    """Logs `train/tokens_per_second`, `train/padding_fraction`, `train/mfu` and `train/tokens_seen`.

    All of them cover the steps since they were last logged, over all ranks, without the time validation took.
    They are logged with the trainer's other numbers, every `log_every_n_steps` steps.  In between only references to
    lengths are kept, so the device is never waited for.

    `train/mfu` is the model FLOPs utilisation of PaLM: see `tunelab.models.flops`.  It is left out where the peak
    of the device is not known.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tokens_seen = 0  # real tokens trained on since the first step of the run, over all ranks
        self._cost: StepFlops | None = None
        self._peak: float | None = None
        self._shares = 1  # processes with rows of their own
        self._paused_at: float | None = None
        self._restart()

    def _restart(self) -> None:
        self._since: float | None = None
        self._lengths: list[Tensor] = []  # of micro-batches, where they are: each (B,)
        self._sums: Tensor | None = None  # (2,) int64 on the device: tokens, pairs
        self._padded = 0
        self._units = 0.0

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._shares = row_share(trainer).size

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restart()
        model = next((part for part in pl_module.modules() if isinstance(part, PreTrainedModel)), None)
        self._cost = None if model is None else step_flops(model)
        if self._cost is not None and self._peak is None:
            self._peak = peak_flops(pl_module.device, _compute_type(str(trainer.precision)))

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        if self._since is None:
            self._since = time.perf_counter()

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self._lengths += [micro.lengths for micro in batch.micro_batches]
        self._padded += sum(micro.ids.numel() for micro in batch.micro_batches)
        self._units += batch.loss_weight
        if len(self._lengths) >= _MAX_PENDING_LENGTHS:
            self._fold()
        if is_log_step(trainer):
            self._report(trainer, pl_module)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._paused_at = time.perf_counter()

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._paused_at is not None and self._since is not None:
            self._since += time.perf_counter() - self._paused_at
        self._paused_at = None

    @override
    def state_dict(self) -> dict[str, Any]:
        # Other ranks are not queried, because a rank may save alone: they are taken to have had as much as this one.
        self._fold()
        pending = 0 if self._sums is None else int(self._sums[0])
        return {"tokens_seen": self.tokens_seen + pending * self._shares}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.tokens_seen = int(state_dict["tokens_seen"])

    def _fold(self) -> None:
        if self._lengths:
            lengths = torch.cat(self._lengths)
            sums = torch.stack((lengths.sum(), lengths.square().sum()))
            self._sums = sums if self._sums is None else self._sums + sums
            self._lengths = []

    def _report(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._fold()
        if self._sums is None or self._since is None:
            return
        padded = torch.tensor([self._padded], dtype=torch.int64, device=self._sums.device)
        total = trainer.strategy.reduce(
            torch.cat((self._sums, padded)), group=row_share(trainer).processes, reduce_op="sum"
        )
        tokens, pairs, positions = torch.as_tensor(total).tolist()  # waits for the device: the time below is then real
        seconds = time.perf_counter() - self._since
        self.tokens_seen += int(tokens)
        values = {
            "train/tokens_per_second": tokens / seconds,
            "train/padding_fraction": 1 - tokens / max(1.0, positions),
            "train/tokens_seen": float(self.tokens_seen),
        }
        if self._cost is not None and self._peak is not None:
            work = self._cost.operations(tokens=tokens, pairs=pairs, outputs=self._units)
            values["train/mfu"] = work / seconds / (self._peak * trainer.world_size)
        for name, value in values.items():
            # Lightning would make it float32, which cannot count past 16.7 million.
            pl_module.log(name, torch.tensor(value, dtype=torch.float64))
        self._restart()
        self._since = time.perf_counter()


def _compute_type(precision: str) -> torch.dtype:
    """The number format of matrix products under one of the trainer's `precision` settings."""
    if precision.startswith("64"):
        return torch.float64
    return next((kind for start, kind in _MATMUL_TYPES.items() if precision.startswith(start)), torch.float32)


MEGABYTE = 2**20
PROC_STATM = Path("/proc/self/statm")  # of Linux: sizes in pages, the second is what is resident


class MemoryMonitor(Callback):
    """Logs `train/memory_mb`, what the process of rank 0 holds now, and `train/gpu_peak_mb`, most that its GPU held.

    Megabytes are 2^20 bytes.  The peak is that of the tensors of PyTorch since the run began; without a GPU, and
    outside Linux, what cannot be known is left out.
    """

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not is_log_step(trainer):
            return
        if (resident := resident_bytes()) is not None:
            pl_module.log("train/memory_mb", resident / MEGABYTE)
        if pl_module.device.type == "cuda":
            pl_module.log("train/gpu_peak_mb", torch.cuda.max_memory_allocated(pl_module.device) / MEGABYTE)


def resident_bytes() -> int | None:
    """Bytes of memory that this process holds; None where the system does not report it."""
    if not PROC_STATM.is_file():
        return None
    return int(PROC_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
