"""The config of a run that is resumed: its own settings, and the few that may change in between."""

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tunelab.config.renames import rename_old_names
from tunelab.config.stored_files import SHAPE_FAULTS, UnreadableFileError, error_on_one_line, read_stored_yaml
from tunelab.errors import ConfigError
from tunelab.language.translation import message, translate

CHANGEABLE_KEYS = (
    *(
        "max_epochs",
        "max_steps",
        "logger",
        "allow_changed_base",
        "callbacks",
        "trainer",
        "test",
        "save",
        "eval",
        "name",
        "lang",
    ),
    *("trial", "search", "hydra"),  # what a search adds, and Hydra's own
)
COMPUTED_KEYS = (  # how a step is computed, not what it learns
    *(
        "micro_tokens",
        "memory.chunked_loss",
        "memory.activation_checkpointing",
        "memory.step_in_backward",
        "data.workers",
    ),
)
ROUNDING_NOTE = message(
    "each step learns from the same rows as before, so results agree with those of an "
    "unchanged run to about 1e-6 and no longer to the last bit; dropout, where there is "
    "any, draws other masks"
)


DAMAGED_CONFIG_HINT = message("a run writes it once and never changes it, so take it from a backup, or start a new run")


def find_config_file(folder: Path) -> Path:
    """The file with the settings of a run.

    Raises:
        ConfigError: If there is no run; names folders like it.
    """
    stored = folder / "config.yaml"
    if stored.is_file():
        return stored
    others = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
    near = get_close_matches(folder.name, sorted(set(others) - {folder.name}), 3)
    lost = (
        translate("no config.yaml in it")
        if folder.is_dir()
        else translate("that is a file")
        if folder.exists()
        else translate("no such folder")
    )
    hint = (
        translate("near it are {names}", names=", ".join(near))
        if near
        else translate("give the folder that a training printed as its run folder")
    )
    raise ConfigError(
        translate("resume={folder}: there is no run ({lost}); {hint}", folder=folder, lost=lost, hint=hint)
    )


def read_settings(file: Path) -> DictConfig:
    """The settings of a run from its config.yaml.

    Raises:
        ConfigError: If the file is not there, or not as the run wrote it.
    """
    try:
        settings = OmegaConf.create(read_stored_yaml(file, DAMAGED_CONFIG_HINT))
    except UnreadableFileError:
        raise
    except (YAMLError, OSError, OmegaConfBaseException, *SHAPE_FAULTS) as fault:
        raise ConfigError(
            translate(
                "{file} cannot be read: {fault}; {damaged_config_hint}",
                file=file,
                fault=error_on_one_line(fault),
                damaged_config_hint=DAMAGED_CONFIG_HINT,
            )
        ) from fault
    if not isinstance(settings, DictConfig) or not isinstance(settings.get("data"), DictConfig):
        raise ConfigError(
            translate(
                "{file} holds no settings of a run; {damaged_config_hint}",
                file=file,
                damaged_config_hint=DAMAGED_CONFIG_HINT,
            )
        )
    return settings


def resume_config(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The settings of the run that `config.resume` names, with what the command line may still change.

    Args:
        config: As composed from the command line.
        overrides: The command line.

    Raises:
        ConfigError: If there is no such run, or a setting would change what is learned half-way.
    """
    folder = Path(str(config.resume))
    stored = find_config_file(folder)
    resumed = rename_old_names(read_settings(stored))
    faults = []
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key == "resume":
            continue
        if key.partition(".")[0] not in CHANGEABLE_KEYS and key not in COMPUTED_KEYS:
            faults.append(
                translate(
                    "{override} would change what is learned half-way; resume takes {names}. Start a new run for it",
                    override=override,
                    names=", ".join([*CHANGEABLE_KEYS[:-3], *COMPUTED_KEYS]),
                )
            )
            continue
        first = os.environ.get("LOCAL_RANK", "0") == "0"  # of several processes one says it
        if (
            first
            and key in ("micro_tokens", "memory.chunked_loss", "trainer.devices")
            and str(OmegaConf.select(resumed, key)) != str(OmegaConf.select(config, key))
        ):
            print(
                translate(
                    "note: {key} was {value}: {rounding_note}",
                    key=key,
                    value=OmegaConf.select(resumed, key),
                    rounding_note=ROUNDING_NOTE,
                ),
                file=sys.stderr,
            )
        OmegaConf.update(resumed, key, OmegaConf.select(config, key), force_add=True)
    if faults:
        raise ConfigError.listing(faults)
    resumed.resume = str(folder)
    return resumed
