"""The comments in conf/ as values: the options of each group and the keys of each file.  Text in, values out.

The comments are the only place where options and settings are explained; `--help` and the tests read them from here.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_KEY = re.compile(
    r"""(?P<indent>\ *)(?P<name>[A-Za-z_]\w*):            # one key of a block
        (?:\ +(?P<value>"[^"]*"|'[^']*'|[^\s\#][^\#]*?))?  # what it is set to
        \s*(?:\#\s*(?P<note>.*))?                        # what changing it does
    """,
    re.VERBOSE,
)
_CHOICE = re.compile(r"\s*-\s+(?:(?:override|optional)\s+)*/?(?P<group>[\w/]+)(?:@[\w.]+)?:\s*(?P<names>[^#]*)")
_INCLUDED = re.compile(r"\s*-\s+(?P<path>[\w/]+)\s*(?:#.*)?")


@dataclass(frozen=True, slots=True)
class GroupOption:
    """One file of a config group, chosen by `group=name`."""

    group: str
    name: str
    note: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class ConfigKey:
    """One setting of a config file, changed by `name=value`; inside a block the name is dotted."""

    name: str
    value: str
    note: str


def group_options(
    conf: Path, chosen: Mapping[str, Sequence[str]] | None = None, added: Sequence[Path] = ()
) -> list[GroupOption]:
    """Every option of every group, in alphabetical order; Hydra's own groups are left out.

    Args:
        conf: The folder of config.yaml and the groups.
        chosen: Names of the chosen options by group; None reads the defaults list of config.yaml.
        added: Folders with more options; of two with one name the first counts, as for Hydra.
    """
    picked = default_choices(conf) if chosen is None else chosen
    options, files = [], dict[tuple[str, str], Path]()
    for folder in (conf, *added):
        for path in folder.rglob("*.yaml"):
            files.setdefault((path.parent.relative_to(folder).as_posix(), path.stem), path)
    for (group, _), path in sorted(files.items()):
        if group != "." and group.split("/")[0] != "hydra":
            options.append(
                GroupOption(group, path.stem, headline(path.read_text()), path.stem in picked.get(group, ()))
            )
    return options


def default_choices(conf: Path) -> dict[str, list[str]]:
    """Names of the options that the defaults list of config.yaml chooses, by group."""
    return choices_in((conf / "config.yaml").read_text())


def choices_in(text: str) -> dict[str, list[str]]:
    """Names of the options that the defaults list of a config file chooses, by group."""
    choices = [match for line in _defaults_list(text) if (match := _CHOICE.match(line))]
    return {match["group"]: re.findall(r"[\w.-]+", match["names"]) for match in choices}


def included_in(text: str) -> list[str]:
    """Files that the defaults list of a config file takes in whole, such as `base`, by their path beside it."""
    lines = [match for line in _defaults_list(text) if (match := _INCLUDED.fullmatch(line))]
    return [match["path"] for match in lines if match["path"] != "_self_"]


def _defaults_list(text: str) -> list[str]:
    _, _, rest = text.partition("\ndefaults:")
    return re.split(r"\n(?=\w)", rest, maxsplit=1)[0].splitlines()  # up to the next key that stands at the margin


def headline(text: str) -> str:
    """The first comment line of a config file, without the `# @package` line that may stand before it."""
    for line in text.splitlines():
        if not line.startswith("#"):
            if line.strip():
                return ""
        elif (note := line.lstrip("# ").rstrip()) and not note.startswith("@package"):
            return note
    return ""


def config_keys(text: str) -> list[ConfigKey]:
    """Every setting of a config file with its comment; a comment above a key serves where none stands beside it.

    The defaults list is left out: it holds choices, not settings.
    """
    keys: list[ConfigKey] = []
    above: list[str] = []  # comment lines since the last key
    parents: list[tuple[int, str]] = []  # indent and name of the blocks that are open here
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            above.append(line.lstrip("# ").rstrip())
            continue
        if match := _KEY.fullmatch(line):
            indent = len(match["indent"])
            parents = [parent for parent in parents if parent[0] < indent]
            name = ".".join([*(parent for _, parent in parents), match["name"]])
            if match["value"] is None:
                parents.append((indent, match["name"]))
            elif name.split(".")[0] != "defaults":
                keys.append(ConfigKey(name, match["value"], match["note"] or " ".join(above)))
        above = []
    return keys


def top_level_keys(conf: Path) -> list[ConfigKey]:
    """The settings of config.yaml, without those of Hydra itself."""
    return [key for key in config_keys((conf / "config.yaml").read_text()) if not key.name.startswith("hydra.")]
