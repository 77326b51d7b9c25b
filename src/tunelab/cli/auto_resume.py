"""`resume=auto`: the newest run of the typed configuration that can go on, or a new run where there is none."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tunelab.config.flatten import flatten
from tunelab.config.override_text import primary_config
from tunelab.config.overrides import complete_overrides, override_key
from tunelab.config.resource_paths import conf_directory
from tunelab.config.resume import CHANGEABLE_KEYS, COMPUTED_KEYS
from tunelab.errors import ConfigError, TuneLabError
from tunelab.language.translation import translate
from tunelab.runs.redact import redact
from tunelab.runs.run_dir import RunDirectory
from tunelab.runs.run_status import PREEMPTED

AUTO = "auto"
RANK_VARIABLES = ("RANK", "SLURM_PROCID", "LOCAL_RANK")


def name_run_to_resume(arguments: Sequence[str]) -> list[str]:
    """The command line with the folder of a run in place of `resume=auto`; without it where no run can go on.

    Settings of the run stand in its folder, so of the words only those are kept that may change half-way.

    Raises:
        ConfigError: If the command is a search or a cross-validation, which go on by themselves.
    """
    typed = list(arguments)
    others = [word for word in typed if word.lstrip("+").replace("'", "").replace('"', "") != f"resume={AUTO}"]
    if len(others) == len(typed):
        return typed
    folds = [word for word in others if override_key(word) == "cv.folds" and word.partition("=")[2] != "null"]
    if folds or {"-m", "--multirun"} & set(others):
        raise ConfigError(
            translate(
                "resume=auto is for a single run; a search and a cross-validation go on when their "
                "command is given again"
            )
        )
    config, place = compose_with_folder(complete_overrides(others))
    named = any(override_key(word) == "hydra.run.dir" for word in others)
    run = newest_resumable(config, [place] if named else list(place.parent.glob("*")))
    if run is None:
        where = place if named else place.parent
        print(
            translate(
                "resume=auto: no run of this configuration to go on with in {folder}; starting a new one", folder=where
            )
        )
        return others
    print(translate("resume=auto: going on with {folder}", folder=run))
    kept = [word for word in others if word.startswith("-") or may_change(override_key(word))]
    return [f"resume='{run}'", *(word for word in kept if override_key(word) != "hydra.run.dir")]


def may_change(key: str) -> bool:
    """Whether a setting may change when a run goes on."""
    return key.partition(".")[0] in (*CHANGEABLE_KEYS, "plugins") or key in COMPUTED_KEYS


def compose_with_folder(overrides: Sequence[str]) -> tuple[DictConfig, Path]:
    """The config of a command line, and the folder that its run would get."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        words = [word for word in overrides if not word.startswith("-")]
        config = compose(primary_config(overrides), overrides=words, return_hydra_config=True)
    place = Path(str(config.hydra.run.dir))
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]), place


def newest_resumable(config: DictConfig, folders: Sequence[Path]) -> Path | None:
    """The folder of the run that started last, of those that can go on and have the same settings.

    Args:
        config: The settings.
        folders: Where to look.
    """
    now = learned_settings(config)
    rank = max(int(os.environ.get(name) or 0) for name in RANK_VARIABLES)
    runs = []
    for folder in folders:
        run = RunDirectory(folder)
        manifest = read_manifest(run)
        status = manifest.get("status")
        resumable = status in ("running", PREEMPTED) or (status == "failed" and run.last.is_file())
        # the first of several processes may hold the run already, for all of them
        if resumable and (rank > 0 or not run.is_held()) and stored_settings(run) == now:
            runs.append((str(manifest.get("started")), folder))
    return max(runs)[1] if runs else None


def read_manifest(run: RunDirectory) -> dict[str, Any]:
    """The manifest of a folder; empty where there is none, or it is damaged: such a run is no candidate."""
    try:
        return run.read_manifest()
    except (TuneLabError, OSError, ValueError, TypeError):
        return {}


def stored_settings(run: RunDirectory) -> Mapping[str, Any] | None:
    """The settings of a run that decide what it learns; None where they cannot be read."""
    from yaml import YAMLError

    try:
        stored = OmegaConf.load(run.config)
        return learned_settings(stored) if isinstance(stored, DictConfig) else None
    except (TuneLabError, OSError, ValueError, YAMLError):
        return None


def learned_settings(config: DictConfig) -> Mapping[str, Any]:
    """The settings that decide what a run learns, by dotted name, as they stand in a run folder."""
    from tunelab.config.validate import validate_config  # it takes the schema, which --help does without

    values: Any = redact(validate_config(config, for_training=False).as_dict())
    return {key: value for key, value in flatten(values).items() if key != "resume" and not may_change(key)}
