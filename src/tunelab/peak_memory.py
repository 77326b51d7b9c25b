"""The most memory that a run held, for its card: what a search may limit."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

MEGABYTE = 2**20
STATUS = Path("/proc/self/status")  # of Linux: VmHWM is the most that was resident, in KiB
REFS = Path("/proc/self/clear_refs")  # a 5 written there sets VmHWM back to what is resident now


def begin() -> None:
    """Forget what this process held before, so that runs of one process are told apart."""
    with suppress(OSError):  # not Linux, or a kernel without it: the peak is then that of the process
        REFS.write_text("5", encoding="ascii")
    if torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)


def peaks(sessions: Sequence[Mapping[str, Any]] = ()) -> dict[str, float | None]:
    """The most memory since `begin`, in megabytes of 2^20 bytes; None where the system does not tell.

    Args:
        sessions: Earlier sessions of the run, as its card has them; the largest counts.

    Returns:
        `process_mb`, resident memory of this process, and `gpu_mb`, tensors of PyTorch on the GPU that held most.
    """
    now = {"process_mb": resident(), "gpu_mb": on_gpu()}
    before = [session.get("memory") or {} for session in sessions]
    known = {name: [value, *(past.get(name) for past in before)] for name, value in now.items()}
    return {name: max((v for v in values if v is not None), default=None) for name, values in known.items()}


def resident() -> float | None:
    """The most that was resident."""
    with suppress(OSError):
        found = re.search(r"VmHWM:\s*(\d+)", STATUS.read_text(encoding="ascii"))
        return int(found[1]) / 1024 if found else None
    return None


def on_gpu() -> float | None:
    """The most that tensors held on one GPU."""
    if not torch.cuda.is_initialized():
        return None
    held = [torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count())]
    return max(held, default=0) / MEGABYTE
