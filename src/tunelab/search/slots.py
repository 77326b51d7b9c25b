"""Slots: which devices and how many threads each of the parallel trials gets."""

import os
from collections.abc import Mapping
from pathlib import Path

from tunelab.errors import ConfigError


def make_slots(slots: int, devices_per_trial: int, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """The environment variables of each slot.

    Args:
        slots: Trials at a time.
        devices_per_trial: GPUs of one trial.
        environment: Ours; what it says of devices and threads holds.

    Raises:
        ConfigError: If there are GPUs, and fewer than the slots ask for.
    """
    found = devices(environment)
    if found and slots * devices_per_trial > len(found):
        raise ConfigError(
            f"search.slots={slots} with search.devices_per_trial={devices_per_trial} needs {slots * devices_per_trial} "
            f"GPUs and {len(found)} are there; two trials on one GPU would fight over its memory. Lower search.slots, "
            "or set search.devices_per_trial=0 to let them share"
        )
    threads = max(1, (os.cpu_count() or 1) // slots)
    made = []
    for slot in range(slots):
        mine = found[slot * devices_per_trial : (slot + 1) * devices_per_trial]
        variables = {"CUDA_VISIBLE_DEVICES": ",".join(mine)} if mine else {}
        if slots > 1 and "OMP_NUM_THREADS" not in environment:
            variables["OMP_NUM_THREADS"] = str(threads)  # or each would take every core
        made.append(variables)
    return made


def devices(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that trials may use, as CUDA names them."""
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [name for name in environment["CUDA_VISIBLE_DEVICES"].split(",") if name]
    return [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]
