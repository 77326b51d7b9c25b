"""The environment of a run: revision of the code, packages, hardware, numeric switches."""

import hashlib
import os
import platform
import socket
import subprocess
from email import message_from_string
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

from tunelab.runs.file_digests import sha256_files
from tunelab.runs.redact import redact

DIFF_LIMIT = 200_000  # bytes of the diff kept in the manifest; its sha256 covers all of it


def code_revision(folder: Path | None = None) -> dict[str, Any]:
    """Commit, dirty flag and diff of the code.

    Args:
        folder: A folder of the repository; None for that of this package.

    Returns:
        `commit`, `branch`, `dirty`, `diff` (text, secrets redacted, at most `DIFF_LIMIT` bytes), `diff_bytes`,
        `diff_sha256`, `untracked` (names); or `commit` None and `reason` where the code is under no version control.
    """
    folder = folder or Path(__file__).parents[1]
    try:
        if not _git(folder, "ls-files", ".").strip():  # an ignored .venv inside a repository is not its code
            return {"commit": None, "reason": f"{folder} is under no version control"}
        commit = _git(folder, "rev-parse", "HEAD").decode().strip()
        branch = _git(folder, "rev-parse", "--abbrev-ref", "HEAD").decode().strip()
        diff = _git(folder, "diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color", "--binary")
        top = Path(_git(folder, "rev-parse", "--show-toplevel").decode().strip())
        listed = _git(top, "ls-files", "--others", "--exclude-standard", "-z")
    except (OSError, subprocess.SubprocessError) as fault:
        answer = getattr(fault, "stderr", None) or str(fault).encode()
        return {"commit": None, "reason": str(redact(answer.decode(errors="replace").strip()))}
    untracked = sorted(name.decode(errors="replace") for name in listed.split(b"\0") if name)
    text = str(redact(diff.decode(errors="replace")))  # before the cut, which might leave half a secret
    return {
        "commit": commit,
        "branch": branch,
        "dirty": bool(diff or untracked),
        "diff": text.encode()[:DIFF_LIMIT].decode(errors="ignore"),
        "diff_bytes": len(diff),
        "diff_sha256": hashlib.sha256(diff).hexdigest(),
        "untracked": untracked,
    }


def code_sha256(folder: Path | None = None) -> str:
    """One sha256 over the source files of this package, whether under version control or not."""
    folder = folder or Path(__file__).parents[1]
    return sha256_files(folder.rglob("*.py"), folder)


def _git(folder: Path, *words: str) -> bytes:
    """The output of a git command that takes no locks, so that it disturbs no commit at the same time."""
    quiet = os.environ | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    done = subprocess.run(["git", *words], cwd=folder, env=quiet, capture_output=True, check=True, timeout=20)
    return done.stdout


# Variables that change results or say where a job ran.  An allow-list, as the environment holds secrets.
RECORDED_VARIABLES = (
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


def installed_packages() -> dict[str, str]:
    """Version of every installed package, by name; of two under one name, the first on the path."""
    return dict(_package_versions())


@cache  # saves a fifth of a second for each run of an inline search
def _package_versions() -> tuple[tuple[str, str], ...]:
    versions: dict[str, str] = {}
    for package in distributions():
        text = package.read_text("METADATA") or package.read_text("PKG-INFO") or ""
        head = message_from_string(text.partition("\n\n")[0])  # what follows is the README of the package
        if name := head["Name"]:
            versions.setdefault(name.lower().replace("_", "-"), head["Version"])
    return tuple(sorted(versions.items()))


def hardware_info() -> dict[str, Any]:
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


def numeric_switches() -> dict[str, Any]:
    """Switches that change the last digits of a result."""
    cudnn: Any = torch.backends.cudnn
    return {
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cuda": torch.version.cuda,
        "cudnn": cudnn.version() if torch.cuda.is_available() else None,
        "environment": {name: os.environ[name] for name in RECORDED_VARIABLES if name in os.environ},
    }


def _gpus() -> list[dict[str, Any]]:
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return [
            {"name": gpu.name, "memory_bytes": gpu.total_memory, "capability": f"{gpu.major}.{gpu.minor}"}
            for gpu in devices
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
