"""What a run takes from the socket, where the machine counts it: processors by RAPL, NVIDIA GPUs by NVML."""

import ctypes
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

RAPL = Path("/sys/class/powercap")
EVERY = 20.0  # seconds between readings: a counter of a busy processor may start over after three quarters of an hour
MILLIJOULES, MICROJOULES = 1e-3, 1e-6

Counter = tuple[Callable[[], float], float]  # reads joules since some start; after so many joules it starts over


class EnergyMeter:
    """Adds up counters between `start` and `stop`.  They count the whole device, whoever else works on it.

    Args:
        processors: Counters of the processors; those of this machine unless given.
        gpus: Counters of the GPUs; those that torch sees unless given.
    """

    def __init__(self, processors: Sequence[Counter] | None = None, gpus: Sequence[Counter] | None = None) -> None:
        self.counters = {
            "processor_joules": list(rapl_counters(RAPL) if processors is None else processors),
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
        while not self._ended.wait(EVERY):
            self.take()


def rapl_counters(folder: Path) -> list[Counter]:
    """Counters of whole processors.  Many systems let only their administrator read them."""
    found: list[Counter] = []
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


def nvml_counters() -> list[Counter]:
    """Counters of the GPUs that torch sees, through the driver's own library."""
    if not torch.cuda.is_available() or torch.version.cuda is None:
        return []
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return []
    if library.nvmlInit_v2():
        return []
    found: list[Counter] = []
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
