"""Packages from outside whose classes a config may name: those of the command line, the environment, and installed
entry points; never one that a config file names.
"""

import os
import sys
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tunelab.errors import ConfigError
from tunelab.language.translation import translate

VARIABLE = "TUNELAB_PLUGINS"  # packages, separated by commas
FOLDER_VARIABLE = "TUNELAB_PLUGINS_FOLDER"  # where a person named them; a reproduction starts in another folder
ENTRY_POINT_GROUP = "tunelab.plugins"
KEY = "plugins"

# Read as the process starts: Hydra lets a config set environment variables, and a config may add no package.
_packages: list[str] = [name for name in os.environ.get(VARIABLE, "").replace(" ", "").split(",") if name]
_folder = Path(os.environ.get(FOLDER_VARIABLE) or Path.cwd())


def allow_plugins(overrides: Sequence[str]) -> list[str]:
    """The overrides of a command line without `plugins=[...]`, whose packages are allowed from now on.

    Child processes inherit them by the environment.

    Raises:
        ConfigError: If a name is no package name.
    """
    kept = []
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key != KEY:
            kept.append(override)
            continue
        for name in filter(None, (part.strip(" '\"") for part in value.strip("[] ").split(","))):
            if not all(part.isidentifier() for part in name.split(".")):
                raise ConfigError(
                    translate(
                        "{override}: '{name}' is no package; give names as plugins=[mylab]",
                        override=override,
                        name=name,
                    )
                )
            if name not in _packages:
                _packages.append(name)
    restore_environment()
    make_importable()
    return kept


def make_importable() -> None:
    """Let packages of the folder in which a plugin was named be imported, last of all, where the plugin lies there.

    Our processes start without the current folder on the import path, so that no stray file in it replaces a module.
    """
    for name in _packages:
        top = name.partition(".")[0]
        lies_here = (_folder / top).is_dir() or (_folder / f"{top}.py").is_file()
        if lies_here and str(_folder) not in sys.path and find_spec(top) is None:
            sys.path.append(str(_folder))


def refuse_process_keys(overrides: Sequence[str]) -> Sequence[str]:
    """The overrides of a stored study or run, as they are.

    Raises:
        ConfigError: If one of them is no setting of a run: plugins, a flag, or Hydra's own, by which a study from
            somebody else would execute what it likes.  Only a person at the command line may give those.
    """
    if odd := [override for override in overrides if is_process_key(override)]:
        raise ConfigError(
            translate(
                "{odd} stands in a stored study, which may hold settings of runs only; give it on the command line",
                odd=odd[0],
            )
        )
    return overrides


def is_process_key(override: str) -> bool:
    """Whether an override would set something of the process rather than of the run: Hydra's own, plugins, a flag."""
    key = override.lstrip("+~ ").partition("=")[0]
    if key == "hydra.searchpath":  # where more yaml files lie, which are read as values
        return "pkg://" in override
    if key == "--config-name":  # which of them all others join
        return "/" in override
    return key.startswith("-") or key.replace("/", ".").replace("@", ".").split(".")[0] in ("hydra", KEY)


def restore_environment() -> None:
    """Set the environment to the packages of this process, whatever a config has set it to."""
    for name, value in ((VARIABLE, ",".join(_packages)), (FOLDER_VARIABLE, str(_folder) if _packages else "")):
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)


def plugin_packages() -> tuple[str, ...]:
    """The packages whose classes a config may name."""
    return tuple(dict.fromkeys([*_packages, *installed_plugins()]))


@cache
def installed_plugins() -> tuple[str, ...]:
    """The packages that installed distributions register as plugins."""
    from importlib.metadata import entry_points  # a twentieth of what --help takes, which asks for none

    return tuple(entry.value.partition(":")[0] for entry in entry_points(group=ENTRY_POINT_GROUP))


make_importable()  # those of the environment
