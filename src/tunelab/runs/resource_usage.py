"""Energy and peak memory of a run, for its manifest."""

import ctypes
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

RAPL_FOLDER = Path("/sys/class/powercap")
READING_SECONDS = 20.0  # between two readings; the counter of a busy processor wraps around after 45 minutes
MILLIJOULES, MICROJOULES = 1e-3, 1e-6

EnergyCounter = tuple[Callable[[], float], float]  # reads joules; the joules after which it wraps around


class EnergyMeter:
    """Adds up energy counters between `start` and `stop`.  They count the whole device, other processes included.

    Args:
        processors: Counters of the processors; by default those of this machine.
        gpus: Counters of the GPUs; by default those that torch sees.
    """

    def __init__(
        self, processors: Sequence[EnergyCounter] | None = None, gpus: Sequence[EnergyCounter] | None = None
    ) -> None:
        self.counters = {
            "processor_joules": list(rapl_counters(RAPL_FOLDER) if processors is None else processors),
            "gpu_joules": list(nvml_counters() if gpus is None else gpus),
        }
        self.joules = dict.fromkeys(self.counters, 0.0)
        self._ended = threading.Event()
        self._readings: dict[str, list[float]] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> "EnergyMeter":
        """Start counting."""
        self._readings = {name: [read() for read, _ in counters] for name, counters in self.counters.items()}
        if any(self.counters.values()):
            self._thread.start()
        return self

    def stop(self) -> dict[str, float | None]:
        """Joules since `start`, for each kind of device; None where nothing can be read."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self.accumulate()
        return {name: self.joules[name] if counters else None for name, counters in self.counters.items()}

    def accumulate(self) -> None:
        """Add the energy since the last reading."""
        for name, counters in self.counters.items():
            for index, (read, wrap) in enumerate(counters):
                now, before = read(), self._readings[name][index]
                self.joules[name] += now - before if now >= before else now - before + wrap
                self._readings[name][index] = now

    def _watch(self) -> None:
        while not self._ended.wait(READING_SECONDS):
            self.accumulate()


def rapl_counters(folder: Path) -> list[EnergyCounter]:
    """Energy counters of the processors.  On many systems only the administrator can read them."""
    counters: list[EnergyCounter] = []
    for zone in sorted(folder.glob("intel-rapl:*")):
        if zone.name.count(":") > 1:  # a part of a processor, included in its counter
            continue
        counter = zone / "energy_uj"
        try:
            wrap = int((zone / "max_energy_range_uj").read_text()) * MICROJOULES
            int(counter.read_text())
        except (OSError, ValueError):
            continue
        counters.append((lambda counter=counter: int(counter.read_text()) * MICROJOULES, wrap))  # type: ignore[misc]
    return counters


def nvml_counters() -> list[EnergyCounter]:
    """Energy counters of the GPUs that torch sees, from the library of the driver."""
    if not torch.cuda.is_available() or torch.version.cuda is None:
        return []
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return []
    if library.nvmlInit_v2():
        return []
    counters: list[EnergyCounter] = []
    for index in range(torch.cuda.device_count()):
        handle, name = ctypes.c_void_p(), f"GPU-{torch.cuda.get_device_properties(index).uuid}"
        if library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle)) == 0:

            def read(handle: ctypes.c_void_p = handle) -> float:
                total = ctypes.c_ulonglong()
                status = library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(total))
                return float("nan") if status else total.value * MILLIJOULES

            if read() == read():  # NaN on older GPUs, which have no counter
                counters.append((read, 0.0))
    return counters


MEGABYTE = 2**20
PROC_STATUS = Path("/proc/self/status")  # Linux: VmHWM is the peak resident memory, in KiB
PROC_CLEAR_REFS = Path("/proc/self/clear_refs")  # a 5 written there sets VmHWM back to what is resident now


def reset_peak_memory() -> None:
    """Reset the peaks of this process, so that several runs in one process are measured separately."""
    with suppress(OSError):  # not Linux, or a kernel without it: the peak covers the whole process
        PROC_CLEAR_REFS.write_text("5", encoding="ascii")
    if torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)


def measure_peak_memory(sessions: Sequence[Mapping[str, Any]] = ()) -> dict[str, float | None]:
    """Peak memory since `reset_peak_memory`, in megabytes of 2^20 bytes; None where it is unknown.

    Args:
        sessions: Earlier sessions in the manifest of the run; the largest value counts.

    Returns:
        `process_mb`, resident memory of this process, and `gpu_mb`, tensors on the GPU with the highest peak.
    """
    now = {"process_mb": peak_resident_mb(), "gpu_mb": peak_gpu_mb()}
    earlier = [session.get("memory") or {} for session in sessions]
    peaks = {name: [value, *(memory.get(name) for memory in earlier)] for name, value in now.items()}
    return {name: max((v for v in values if v is not None), default=None) for name, values in peaks.items()}


def peak_resident_mb() -> float | None:
    """Peak resident memory of this process."""
    with suppress(OSError):
        match = re.search(r"VmHWM:\s*(\d+)", PROC_STATUS.read_text(encoding="ascii"))
        return int(match[1]) / 1024 if match else None
    return None


def peak_gpu_mb() -> float | None:
    """Peak memory of tensors on one GPU."""
    if not torch.cuda.is_initialized():
        return None
    peaks = [torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count())]
    return max(peaks, default=0) / MEGABYTE
