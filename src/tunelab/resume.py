"""Going on with a run: its own settings, and the few that may change in between."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from tunelab.errors import ConfigError

FREE = (
    *("max_epochs", "max_steps", "logger", "callbacks", "trainer", "test", "save", "eval", "name"),
    *("trial", "search", "hydra"),  # what a search adds, and Hydra's own
)


def resumed(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The settings of the run that `config.resume` names, with what the command line may still change.

    Args:
        config: As composed from the command line.
        overrides: The command line.

    Raises:
        ConfigError: If there is no such run, or a setting would change what is learned half-way.
    """
    folder = Path(str(config.resume))
    stored = folder / "config.yaml"
    if not stored.is_file():
        beside = sorted(path.name for path in folder.parent.glob("*/")) if folder.parent.is_dir() else []
        near = get_close_matches(folder.name, beside, 3)
        raise ConfigError(
            f"resume={folder}: there is no run (no config.yaml)" + (f"; near it are {', '.join(near)}" if near else "")
        )
    found = OmegaConf.load(stored)
    assert isinstance(found, DictConfig)
    faults = []
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key == "resume":
            continue
        if key.partition(".")[0] not in FREE:
            faults.append(
                f"{override} would change what is learned half-way; resume takes {', '.join(FREE[:-3])}. "
                "Start a new run for it"
            )
            continue
        OmegaConf.update(found, key, OmegaConf.select(config, key), force_add=True)
    if faults:
        raise ConfigError.listing(faults)
    found.resume = str(folder)
    return found
