"""What the code ran on: packages, hardware, numeric switches."""

import os
import platform
import socket
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

# Variables that change results or say where a job ran.  A list of what may be kept: the environment holds secrets.
ENVIRONMENT = (
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "HF_HUB_OFFLINE",
    "MKL_NUM_THREADS",
    "NCCL_ALGO",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "PYTHONHASHSEED",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "SLURM_JOB_ID",
    "TOKENIZERS_PARALLELISM",
    "WORLD_SIZE",
)


def packages() -> dict[str, str]:
    """Version of every installed package, by name; of two under one name, the one Python finds first."""
    return dict(_installed())


@cache  # a fifth of a second for each run of a search that stays in one process
def _installed() -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for package in distributions():
        if name := package.metadata["Name"]:
            found.setdefault(name.lower().replace("_", "-"), package.version)
    return tuple(sorted(found.items()))


def hardware() -> dict[str, Any]:
    """Host, processor, cores, memory and accelerators; memory in bytes."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "host": socket.gethostname(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "usable_cores": usable,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": _gpus(),
    }


def numerics() -> dict[str, Any]:
    """Switches that change the last digits of a result."""
    cudnn: Any = torch.backends.cudnn
    return {
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cuda": torch.version.cuda,
        "cudnn": cudnn.version() if torch.cuda.is_available() else None,
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
    }


def _gpus() -> list[dict[str, Any]]:
    if torch.cuda.is_available():
        seen = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return [
            {"name": gpu.name, "memory_bytes": gpu.total_memory, "capability": f"{gpu.major}.{gpu.minor}"}
            for gpu in seen
        ]
    return [{"name": "Apple GPU (MPS)"}] if torch.backends.mps.is_available() else []


def _processor() -> str:
    """The model of the processor: /proc knows it on Linux, where `platform` gives only its family."""
    table = Path("/proc/cpuinfo")
    if table.is_file():
        for line in table.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
