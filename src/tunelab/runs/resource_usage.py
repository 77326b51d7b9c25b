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
READING_SECONDS = (
    20.0  # seconds between readings: a counter of a busy processor may start over after three quarters of an hour
)
MILLIJOULES, MICROJOULES = 1e-3, 1e-6

EnergyCounter = tuple[Callable[[], float], float]  # reads joules since some start; after so many joules it starts over


class EnergyMeter:
    """Adds up counters between `start` and `stop`.  They count the whole device, whoever else works on it.

    Args:
        processors: Counters of the processors; those of this machine unless given.
        gpus: Counters of the GPUs; those that torch sees unless given.
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
        self._seen: dict[str, list[float]] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> "EnergyMeter":
        """Begin to count."""
        self._seen = {name: [read() for read, _ in found] for name, found in self.counters.items()}
        if any(self.counters.values()):
            self._thread.start()
        return self

    def stop(self) -> dict[str, float | None]:
        """Joules since `start`, for each kind of device; None where nothing can be read."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self.take()
        return {name: self.joules[name] if found else None for name, found in self.counters.items()}

    def take(self) -> None:
        """Add what the counters have moved on by."""
        for name, found in self.counters.items():
            for place, (read, turn) in enumerate(found):
                now, before = read(), self._seen[name][place]
                self.joules[name] += now - before if now >= before else now - before + turn
                self._seen[name][place] = now

    def _watch(self) -> None:
        while not self._ended.wait(READING_SECONDS):
            self.take()


def rapl_counters(folder: Path) -> list[EnergyCounter]:
    """Counters of whole processors.  Many systems let only their administrator read them."""
    found: list[EnergyCounter] = []
    for zone in sorted(folder.glob("intel-rapl:*")):
        if zone.name.count(":") > 1:  # a part of a processor, counted in the whole
            continue
        counter = zone / "energy_uj"
        try:
            turn = int((zone / "max_energy_range_uj").read_text()) * MICROJOULES
            int(counter.read_text())
        except (OSError, ValueError):
            continue
        found.append((lambda counter=counter: int(counter.read_text()) * MICROJOULES, turn))  # type: ignore[misc]
    return found


def nvml_counters() -> list[EnergyCounter]:
    """Counters of the GPUs that torch sees, through the driver's own library."""
    if not torch.cuda.is_available() or torch.version.cuda is None:
        return []
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return []
    if library.nvmlInit_v2():
        return []
    found: list[EnergyCounter] = []
    for index in range(torch.cuda.device_count()):
        handle, name = ctypes.c_void_p(), f"GPU-{torch.cuda.get_device_properties(index).uuid}"
        if library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle)) == 0:

            def read(handle: ctypes.c_void_p = handle) -> float:
                total = ctypes.c_ulonglong()
                status = library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(total))
                return float("nan") if status else total.value * MILLIJOULES

            if read() == read():  # older GPUs do not count
                found.append((read, 0.0))
    return found


MEGABYTE = 2**20
PROC_STATUS = Path("/proc/self/status")  # of Linux: VmHWM is the most that was resident, in KiB
PROC_CLEAR_REFS = Path("/proc/self/clear_refs")  # a 5 written there sets VmHWM back to what is resident now


def reset_peak_memory() -> None:
    """Forget what this process held before, so that runs of one process are told apart."""
    with suppress(OSError):  # not Linux, or a kernel without it: the peak is then that of the process
        PROC_CLEAR_REFS.write_text("5", encoding="ascii")
    if torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)


def measure_peak_memory(sessions: Sequence[Mapping[str, Any]] = ()) -> dict[str, float | None]:
    """The most memory since `begin`, in megabytes of 2^20 bytes; None where the system does not tell.

    Args:
        sessions: Earlier sessions of the run, as its manifest has them; the largest counts.

    Returns:
        `process_mb`, resident memory of this process, and `gpu_mb`, tensors of PyTorch on the GPU that held most.
    """
    now = {"process_mb": peak_resident_mb(), "gpu_mb": peak_gpu_mb()}
    before = [session.get("memory") or {} for session in sessions]
    known = {name: [value, *(past.get(name) for past in before)] for name, value in now.items()}
    return {name: max((v for v in values if v is not None), default=None) for name, values in known.items()}


def peak_resident_mb() -> float | None:
    """The most that was resident."""
    with suppress(OSError):
        found = re.search(r"VmHWM:\s*(\d+)", PROC_STATUS.read_text(encoding="ascii"))
        return int(found[1]) / 1024 if found else None
    return None


def peak_gpu_mb() -> float | None:
    """The most that tensors held on one GPU."""
    if not torch.cuda.is_initialized():
        return None
    held = [torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count())]
    return max(held, default=0) / MEGABYTE
