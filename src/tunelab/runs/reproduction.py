"""Reproduce a run from its manifest alone: its training stages, each in a process with the settings of the run."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelab.config.quoting import path_word
from tunelab.config.resource_paths import resolve_path
from tunelab.errors import ConfigError, TuneLabError
from tunelab.language.translation import message, translate
from tunelab.runs.atomic_files import write_json
from tunelab.runs.checkpoint import read_checkpoint
from tunelab.runs.entry_script import REPLAY_FLAG, script_record, train_command
from tunelab.runs.environment import code_revision, code_sha256, hardware_info, installed_packages, numeric_switches
from tunelab.runs.file_digests import sha256_file, sha256_folder
from tunelab.runs.manifest import SESSION_SETTINGS
from tunelab.runs.redact import REDACTED
from tunelab.runs.run_dir import MANIFEST_SHAPE, RunDirectory
from tunelab.runs.run_status import COMPLETE_STATUSES, PREEMPTED
from tunelab.runs.stored_json import read_stored_json

Manifest = Mapping[str, Any]
REPRODUCIBLE_STATUSES = (*COMPLETE_STATUSES, "diverged")


@dataclass(frozen=True)
class TrainingStage:
    """One training with one configuration.

    Attributes:
        config: Its configuration, plain values.
        stop_at: Optimizer step at which the next stage takes over; None trains to the end.
    """

    config: dict[str, Any]
    stop_at: int | None


def training_stages(manifest: Manifest) -> list[TrainingStage]:
    """The trainings that reproduce a run, one after another.

    A resumed run is bit-identical to the run without a break, so sessions with the same settings are one stage.  Where
    a session changed settings, such as the number of epochs, the earlier settings are trained up to that step: the
    learning rate of every step before it follows from them.
    """
    base = repeated_settings(manifest["config"])
    if day := (manifest.get("data") or {}).get("template_date"):
        base["data"] = {**base["data"], "template_date": day}
    sessions = [*manifest["sessions"], {"resumed_at": manifest.get("resumed_at"), "settings": None}]
    starts = [index for index, session in enumerate(sessions) if session.get("resumed_at") is None]
    stages: list[TrainingStage] = []
    for session in sessions[starts[-1] if starts else 0 :]:  # sessions before a fresh start have no effect
        config = base | deepcopy(session.get("settings") or {})
        config["trainer"] = {**config["trainer"], "enable_progress_bar": False}
        if stages and relevant_settings(stages[-1].config) == relevant_settings(config):
            continue
        if stages:
            stages[-1] = TrainingStage({**stages[-1].config, "test": False}, int(session["resumed_at"]))
        stages.append(TrainingStage(config, None))
    return stages


def relevant_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that may change when a run is resumed, and that change its weights."""
    return {name: config.get(name) for name in SESSION_SETTINGS}


def repeated_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a reproduction: without tracker, search and export."""
    isolated = {"resume": None, "trial": {"id": None, "study": None}, "logger": {"kind": "none"}, "save": False}
    return {**deepcopy(dict(config)), **isolated}


def check_reproducible(manifest: Manifest, name: str) -> None:
    """Check that a run can be reproduced from its manifest.

    Raises:
        ConfigError: Naming every reason why not.
    """
    if "ensemble" in manifest:
        raise ConfigError(
            translate(
                "{name} is an ensemble, which trained nothing; its command makes it again: {command}",
                name=name,
                command=manifest["command"],
            )
        )
    status, faults = str(manifest.get("status")), list[str]()
    resume = shlex.quote(path_word("resume", name))
    if status not in REPRODUCIBLE_STATUSES:
        advice = {
            PREEMPTED: translate("{resume} finishes it first", resume=resume),
            "running": translate("wait for its end, or finish it with {resume} if its process is gone", resume=resume),
            "pruned": translate("its search ended it by the scores of other trials, which no manifest holds"),
        }
        faults.append(
            translate(
                "the run is {status} ({reason}): {advice}",
                status=status,
                reason=manifest.get("reason"),
                advice=advice.get(status, "it has no result to repeat"),
            )
        )
    faults += [
        translate(
            "{key} is redacted in the manifest, since it held a secret; train it with its config.yaml and that value",
            key=key,
        )
        for key in redacted_settings(
            {key: value for key, value in manifest.get("config", {}).items() if key != "logger"}
        )
    ]
    if faults:
        raise ConfigError.listing(faults)


def redacted_settings(value: Any, name: str = "") -> Iterator[str]:
    """Dotted names of redacted settings."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from redacted_settings(inner, f"{name}.{key}".lstrip("."))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            yield from redacted_settings(inner, name)
    elif isinstance(value, str) and REDACTED in value:
        yield name


MANIFEST_ADVICE = message("give a run folder or its run.json")
STOPPED_STATUS = 143  # exit status of a stage that was stopped for the next one
NUMERIC_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "NCCL_ALGO",
    "NVIDIA_TF32_OVERRIDE",
    "PYTHONHASHSEED",
    "TOKENIZERS_PARALLELISM",
)


def read_run_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a run directory, or of a file.

    Raises:
        ConfigError: If there is none.
    """
    file = RunDirectory(path).manifest if path.is_dir() else path
    try:
        return read_stored_json(file, MANIFEST_ADVICE, shape=MANIFEST_SHAPE, required=("config", "sessions"))
    except OSError as fault:
        raise ConfigError(
            translate(
                "{path} is no run: there is no {file}; {manifest_advice}",
                path=path,
                file=file,
                manifest_advice=MANIFEST_ADVICE,
            )
        ) from fault


def current_circumstances(manifest: Manifest, script: Path | None = None) -> dict[str, Any]:
    """The entries of a manifest on data, weights, code, versions and machine as they are now, without any training.

    Args:
        manifest: The manifest of a run.
        script: The script that is to start it again; None takes the recorded one for unchanged.
    """
    directory = Path(manifest["directory"])
    data = {
        name: sha256_file(path)
        for name in (manifest["data"].get("files") or {})
        if (path := resolve_from(directory, name)) is not None and path.is_file()
    }
    base = manifest.get("model") or {}
    folder = resolve_from(directory, str(base.get("path")))
    weights = folder if base.get("sha256") and folder is not None and folder.is_dir() else None
    threads = {"threads": (manifest.get("numerics") or {}).get("threads")}  # a reproduction gets the same number
    return {
        "data": {"files": data},
        "model": {"sha256": sha256_folder(weights)} if weights is not None else {},
        "git": code_revision(),
        "code_sha256": code_sha256(),
        "script": manifest.get("script") if script is None else script_record(script),
        "python": sys.version.split()[0],
        "packages": installed_packages(),
        "hardware": hardware_info(),
        "numerics": {**numeric_switches(), **threads, "deterministic": None, "float32_matmul_precision": None},
    }


def resolve_from(directory: Path, name: str) -> Path | None:
    """The path of a file that a manifest names, relative to the folder in which the run was started."""
    special = name.startswith(("package:", "generated:"))
    return resolve_path(name if special else str(directory / Path(name).expanduser()))


def reproduce_run(
    manifest: Manifest, folder: Path, *, seed: int | None = None, script: Path | None = None
) -> dict[str, Any]:
    """Train the run of a manifest again; returns the new manifest.

    Args:
        manifest: The manifest of the run.
        folder: A folder without a run, for the reproduction.
        seed: Another seed; None for that of the run.
        script: The script of the user's own that starts the training; None for none.

    Raises:
        ConfigError: If the folder holds a run, or the data or the base model is missing.
        TuneLabError: If the reproduction fails.
    """
    if RunDirectory(folder).exists():
        raise ConfigError(
            translate("{folder} holds a run already, which would be overwritten; give another --output", folder=folder)
        )
    directory = Path(manifest["directory"])
    if not directory.is_dir():
        directory = Path.cwd()
    config = dict(manifest["config"]) | ({} if seed is None else {"seed": seed})
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / "again.json").absolute()  # kept beside the result
    write_json(file, {**manifest, "config": config})
    for number, stage in enumerate(training_stages(read_run_manifest(file))):
        command = [*train_command(script), REPLAY_FLAG, str(file), str(number), str(folder.absolute())]
        done = subprocess.run(command, cwd=directory, env=child_environment(manifest, script), check=False)
        if stage.stop_at is not None and done.returncode in (0, STOPPED_STATUS):
            check_stage_step(folder, stage.stop_at)
            continue
        if done.returncode == 2:
            raise ConfigError(
                translate("the run cannot be reproduced, see above: its data and base model must be in place")
            )
        if done.returncode and read_run_manifest(folder).get("status") != "diverged":
            raise TuneLabError(
                translate(
                    "the reproduction ended with status {returncode}; its folder is {folder}",
                    returncode=done.returncode,
                    folder=folder,
                )
            )
    return read_run_manifest(folder)


def check_stage_step(folder: Path, stop_at: int) -> None:
    """Check that a stage stopped at the step at which the run was resumed: else the rest would be another run.

    Raises:
        TuneLabError: If it was stopped from outside, or ended before.
    """
    step = int(read_checkpoint(RunDirectory(folder).last, values_only=True)["global_step"])
    if step != stop_at:
        raise TuneLabError(
            translate(
                "the reproduction stopped at step {step} where the run was resumed at step "
                "{stop_at}; it was stopped from outside, or its data are shorter now. Its folder is "
                "{folder}",
                step=step,
                stop_at=stop_at,
                folder=folder,
            )
        )


def child_environment(manifest: Manifest, script: Path | None = None) -> dict[str, str]:
    """The environment variables of a reproduction: number of threads and numeric switches of the run."""
    numerics = manifest.get("numerics") or {}
    recorded = numerics.get("environment") or {}
    source = str(Path(__file__).parents[2])  # the code that trains is the code whose revision is compared
    # The process starts in the folder that a manifest names, perhaps one from somebody else: no module there is ours.
    places = [os.path.abspath(place) for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    path = {"PYTHONPATH": os.pathsep.join([source, *places])} | ({} if script else {"PYTHONSAFEPATH": "1"})
    switches = {name: str(recorded[name]) for name in NUMERIC_VARIABLES if recorded.get(name) is not None}
    environment = {**os.environ, **path, **switches}
    if numerics.get("threads"):
        environment["OMP_NUM_THREADS"] = str(numerics["threads"])
        environment.pop("MKL_NUM_THREADS", None)
    return environment
