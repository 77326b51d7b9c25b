"""Packages from outside whose classes a config may name: those of the command line, the environment, and installed
entry points; never one that a config file names.
"""

import os
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points

from tunelab.errors import ConfigError

VARIABLE = "TUNELAB_PLUGINS"  # packages, separated by commas
ENTRY_POINT_GROUP = "tunelab.plugins"
KEY = "plugins"

# Read as the process starts: Hydra lets a config set environment variables, and a config may add no package.
_packages: list[str] = [name for name in os.environ.get(VARIABLE, "").replace(" ", "").split(",") if name]


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
                raise ConfigError(f"{override}: '{name}' is no package; give names as plugins=[mylab]")
            if name not in _packages:
                _packages.append(name)
    restore_environment()
    return kept


def refuse_plugins(overrides: Sequence[str]) -> Sequence[str]:
    """The overrides of a stored study or run, as they are.

    Raises:
        ConfigError: If one of them names plugins: only a person at the command line may, and children inherit those.
    """
    if odd := [override for override in overrides if override.lstrip("+").partition("=")[0] == KEY]:
        raise ConfigError(f"{odd[0]} stands in a stored study, which cannot add packages; give it on the command line")
    return overrides


def restore_environment() -> None:
    """Set the environment to the packages of this process, whatever a config has set it to."""
    if _packages:
        os.environ[VARIABLE] = ",".join(_packages)
    else:
        os.environ.pop(VARIABLE, None)


def plugin_packages() -> tuple[str, ...]:
    """The packages whose classes a config may name."""
    return tuple(dict.fromkeys([*_packages, *installed_plugins()]))


@cache
def installed_plugins() -> tuple[str, ...]:
    """The packages that installed distributions register as plugins."""
    return tuple(entry.value.partition(":")[0] for entry in entry_points(group=ENTRY_POINT_GROUP))
