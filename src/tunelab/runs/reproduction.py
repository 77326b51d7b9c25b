"""Reproduce a run from its manifest alone: the training stages it took, each in a process set up as it says."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelab.config.resource_paths import resolve_path
from tunelab.errors import ConfigError, TuneLabError
from tunelab.runs.atomic_files import write_json
from tunelab.runs.checkpoint import read_checkpoint
from tunelab.runs.environment import code_revision, code_sha256, hardware_info, installed_packages, numeric_switches
from tunelab.runs.manifest import SESSION_SETTINGS, sha256_file, sha256_folder
from tunelab.runs.redact import REDACTED
from tunelab.runs.run_dir import RunDirectory

Manifest = Mapping[str, Any]
COMPLETED_STATUSES = ("finished", "early-stopped", "diverged")  # endings that a repetition can be held against


@dataclass(frozen=True)
class TrainingStage:
    """One training without a break.

    Attributes:
        config: Every setting of it, plain values.
        stop_at: Optimizer steps after which it is left for the next stage; None trains to its end.
    """

    config: dict[str, Any]
    stop_at: int | None


def training_stages(manifest: Manifest) -> list[TrainingStage]:
    """The trainings that make the run again, one after another.

    A resumed run is bit for bit the run without a break, so sessions with the same settings are one stage.  Where
    more epochs or another trainer were asked for half-way, the first settings must be trained up to that very step:
    the learning rate of every step before it followed from them.
    """
    given = repeated_settings(manifest["config"])
    told = [*manifest["sessions"], {"resumed_at": manifest.get("resumed_at"), "settings": None}]
    starts = [place for place, session in enumerate(told) if session.get("resumed_at") is None]
    found: list[TrainingStage] = []
    for session in told[starts[-1] if starts else 0 :]:  # what came before a fresh start left nothing behind
        config = given | deepcopy(session.get("settings") or {})
        config["trainer"] = {**config["trainer"], "enable_progress_bar": False}
        if found and relevant_settings(found[-1].config) == relevant_settings(config):
            continue
        if found:
            before = {**found[-1].config, "test": False}
            found[-1] = TrainingStage(before, int(session["resumed_at"]))
        found.append(TrainingStage(config, None))
    return found


def relevant_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that may change when a run goes on, and change what it learns."""
    return {name: config.get(name) for name in SESSION_SETTINGS}


def repeated_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a repetition: no tracker and no search hear of it, and no export is written."""
    quiet = {"resume": None, "trial": {"id": None, "study": None}, "logger": {"kind": "none"}, "save": False}
    return {**deepcopy(dict(config)), **quiet}


def check_reproducible(manifest: Manifest, place: str) -> None:
    """Refuse a manifest that no training can be held against.

    Raises:
        ConfigError: Naming every reason.
    """
    if "ensemble" in manifest:
        raise ConfigError(
            f"{place} is an ensemble, which trained nothing; its command makes it again: {manifest['command']}"
        )
    status, faults = str(manifest.get("status")), list[str]()
    if status not in COMPLETED_STATUSES:
        ways = {
            "pre-empted": f"resume={place} finishes it first",
            "running": f"wait for its end, or finish it with resume={place} if its process is gone",
            "pruned": "its search ended it by the scores of other trials, which no manifest holds",
        }
        faults.append(
            f"the run is {status} ({manifest.get('reason')}): {ways.get(status, 'it has no result to repeat')}"
        )
    faults += [
        f"{name} is redacted in the manifest, since it held a secret; train it with its config.yaml and that value"
        for name in redacted_settings(
            {key: value for key, value in manifest.get("config", {}).items() if key != "logger"}
        )
    ]
    if faults:
        raise ConfigError.listing(faults)


def redacted_settings(value: Any, name: str = "") -> Iterator[str]:
    """Dotted names of settings that were redacted."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from redacted_settings(inner, f"{name}.{key}".lstrip("."))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            yield from redacted_settings(inner, name)
    elif isinstance(value, str) and REDACTED in value:
        yield name


STOPPED_STATUS = 143  # exit status of a stage that was left where the next one begins
NUMERIC_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "NCCL_ALGO",
    "NVIDIA_TF32_OVERRIDE",
    "PYTHONHASHSEED",
    "TOKENIZERS_PARALLELISM",
)


def read_run_manifest(place: Path) -> dict[str, Any]:
    """The manifest of a run folder, or the file itself.

    Raises:
        ConfigError: If there is none.
    """
    file = place / "run.json" if place.is_dir() else place
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise ConfigError(
            f"{place} is no run: {file} cannot be read ({fault}); give a run folder or its run.json"
        ) from fault
    if not isinstance(found, dict) or not {"config", "sessions"} <= found.keys():
        raise ConfigError(f"{file} is no manifest: it has no config and sessions; give a run folder or its run.json")
    return found


def current_circumstances(manifest: Manifest) -> dict[str, Any]:
    """What a manifest would say now of data, weights, code, versions and machine; known before anything is trained."""
    directory = Path(manifest["directory"])
    data = {
        name: sha256_file(place)
        for name in (manifest["data"].get("files") or {})
        if (place := resolve_from(directory, name)) is not None and place.is_file()
    }
    base = manifest.get("model") or {}
    folder = resolve_from(directory, str(base.get("path")))
    known = base.get("sha256") and folder is not None and folder.is_dir()
    threads = {"threads": (manifest.get("numerics") or {}).get("threads")}  # which a repetition is given
    return {
        "data": {"files": data},
        "model": {"sha256": sha256_folder(folder)} if known and folder is not None else {},
        "git": code_revision(),
        "code_sha256": code_sha256(),
        "python": sys.version.split()[0],
        "packages": installed_packages(),
        "hardware": hardware_info(),
        "numerics": {**numeric_switches(), **threads, "deterministic": None, "float32_matmul_precision": None},
    }


def resolve_from(directory: Path, name: str) -> Path | None:
    """Where a name of a manifest points to, seen from the folder that the run was started in."""
    special = name.startswith(("package:", "generated:"))
    return resolve_path(name if special else str(directory / Path(name).expanduser()))


def reproduce_run(manifest: Manifest, folder: Path, *, seed: int | None = None) -> dict[str, Any]:
    """Train the run of a manifest in a new folder; its new manifest.

    Args:
        manifest: What to do.
        folder: Where to; there must be no run in it.
        seed: Another seed than the manifest's.

    Raises:
        ConfigError: If the folder holds something, or what the run was trained on is gone.
        TuneLabError: If the repetition does not come to an end that can be compared.
    """
    if (folder / "run.json").is_file():
        raise ConfigError(f"{folder} holds a run already, which would be overwritten; give another --output")
    directory = Path(manifest["directory"])
    if not directory.is_dir():
        directory = Path.cwd()
    config = dict(manifest["config"]) | ({} if seed is None else {"seed": seed})
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / "again.json").absolute()  # what is done stands beside what came of it
    write_json(file, {**manifest, "config": config})
    given = training_stages(json.loads(file.read_text(encoding="utf-8")))
    for number, stage in enumerate(given):
        command = [sys.executable, "-m", "tunelab.cli.replay", str(file), str(number), str(folder.absolute())]
        done = subprocess.run(command, cwd=directory, env=child_environment(manifest), check=False)
        if stage.stop_at is not None and done.returncode in (0, STOPPED_STATUS):
            check_stage_step(folder, stage.stop_at)
            continue
        if done.returncode == 2:
            raise ConfigError("the run cannot be repeated, see above: what it was trained on has to lie where it lay")
        if done.returncode and read_run_manifest(folder).get("status") != "diverged":
            raise TuneLabError(f"the repetition ended with status {done.returncode}; its folder is {folder}")
    return read_run_manifest(folder)


def check_stage_step(folder: Path, wanted: int) -> None:
    """Refuse to go on from another step than the run did: the rest would be another run.

    Raises:
        TuneLabError: If the stage was stopped from outside, or ended before.
    """
    found = int(read_checkpoint(RunDirectory(folder).last)["global_step"])
    if found != wanted:
        raise TuneLabError(
            f"the repetition stood at step {found} where the run was gone on with at step {wanted}; it was stopped "
            f"from outside, or its data are shorter now. Its folder is {folder}"
        )


def child_environment(manifest: Manifest) -> dict[str, str]:
    """The environment of a repetition: as many threads, and the numeric switches of the run."""
    past = manifest.get("numerics") or {}
    known = past.get("environment") or {}
    source = str(Path(__file__).parents[2])  # the code that repeats is the code that is compared
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))
    found = {**os.environ, "PYTHONPATH": path, **{name: known[name] for name in NUMERIC_VARIABLES if name in known}}
    if past.get("threads"):
        found["OMP_NUM_THREADS"] = str(past["threads"])
        found.pop("MKL_NUM_THREADS", None)
    return found
