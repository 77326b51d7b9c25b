"""How much memory a run takes, over time: a leak shows as a slope."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from typing_extensions import override

from tunelab.callbacks.log_points import is_log_step

MEGABYTE = 2**20
STATM = Path("/proc/self/statm")  # of Linux: sizes in pages, the second is what is resident


class Memory(Callback):
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
        if (held := resident()) is not None:
            pl_module.log("train/memory_mb", held / MEGABYTE)
        if pl_module.device.type == "cuda":
            pl_module.log("train/gpu_peak_mb", torch.cuda.max_memory_allocated(pl_module.device) / MEGABYTE)


def resident() -> int | None:
    """Bytes of memory that this process holds; None where the system does not tell."""
    if not STATM.is_file():
        return None
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
