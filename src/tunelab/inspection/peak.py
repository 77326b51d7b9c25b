"""How much memory something takes at most, and how much there is."""

import gc
import os
from collections.abc import Callable
from pathlib import Path

import torch

GROUP = Path("/sys/fs/cgroup")  # of a container, where it is bound


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """The most bytes of tensors that were allocated at one time during `work`, above what there was before.

    A GPU's allocator counts by itself; on a CPU every allocation is recorded by PyTorch's profiler.  On other devices
    what the CPU allocates is counted.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler announces itself on the terminal
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as found:
        work()
    assert found.profiler is not None
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = top = 0
    for event in sorted(events, key=lambda event: int(event.start_ns())):
        now += event.nbytes()
        top = max(top, now)
    return top


def workspace_bytes(device: torch.device) -> int:
    """What the matrix products of a GPU keep for themselves from the first one on; they are made to let go of it.

    Measure after passes have run: forward and backward have a workspace each.
    """
    if device.type != "cuda":
        return 0
    before = torch.cuda.memory_allocated(device)
    torch._C._cuda_clearCublasWorkspaces()  # as Lightning does before a training, which then takes them anew
    return before - torch.cuda.memory_allocated(device)


def free_bytes(device: torch.device) -> int | None:
    """Bytes that this process could still take on a device; None where nobody says."""
    if device.type == "cuda":
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + reserved
    found = [free for free in (machine_free(), container_free()) if free is not None]
    return min(found, default=None)


def machine_free() -> int | None:
    """Bytes the machine could hand out without swapping."""
    table = Path("/proc/meminfo")
    if not table.is_file():
        return None
    lines = dict(line.split(":", 1) for line in table.read_text().splitlines() if ":" in line)
    return int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else None


def container_free() -> int | None:
    """Bytes until the bound of the container that this process runs in."""
    try:
        bound, used = (GROUP / "memory.max").read_text().strip(), (GROUP / "memory.current").read_text()
        return None if bound == "max" else max(0, int(bound) - int(used))
    except (OSError, ValueError):
        return None
