"""`--help`, made from the comments in conf/: each key with the comment that stands beside it in its yaml."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tunelab.cli.config_comments import ConfigKey, default_choices, group_options, top_level_keys
from tunelab.config import resolvers
from tunelab.config.override_text import config_folders, primary_config
from tunelab.config.resource_paths import is_choice
from tunelab.language.translation import message, translate
from tunelab.runs.terminal import terminal_width, wrap_words

WIDTH = 100  # columns of the printed page where there is no terminal
WIDEST = 120  # columns of the page on a terminal that is wider
HEADS = (message("CHOOSE   group=option       * is in force"), message("SET      key=value"))  # of both tables
MAX_NAME_WIDTH = 30  # a longer name pushes its explanation to the next line


def render_help(conf: Path, overrides: Sequence[str] = ()) -> str:
    """The help page, with the values that the run of `overrides` would have.

    Hydra prints the same page by itself, but lists every group twice to do so, which takes longer than everything else.

    Raises:
        hydra.errors.HydraException: If the overrides name an option or a key that does not exist.
    """
    words = [word for word in overrides if not word.startswith("-")]
    register_help_resolvers(conf, config_folders(words, conf)[1:])
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf.absolute()), version_base="1.3"):
        config = compose(primary_config(overrides), overrides=words, return_hydra_config=True)
        page = str(config.hydra.help.template)
        for part in (config.hydra.help.header, config.hydra.help.footer, *HEADS):
            page = page.replace(part.strip(), translate(part.strip()))
        return wrap_words(Template(page).substitute(), terminal_width())


def register_help_resolvers(conf: Path, added: Sequence[Path] = ()) -> None:
    """Register `${help_groups:}` and `${help_keys:}`, the two tables that conf/hydra/help/tunelab.yaml prints.

    Both follow the rest of the command line: `--help optimizer=sgd` shows the default `lr` of SGD.

    Args:
        conf: The folder of config.yaml and the groups.
        added: Folders of the search path, which may hold more options.
    """

    def help_groups(*, _root_: DictConfig) -> str:
        return _escape_dollars(groups_table(conf, {**default_choices(conf), **_composed_choices(_root_)}, added))

    def help_keys(*, _root_: DictConfig) -> str:
        return _escape_dollars(keys_table(conf, _composed_values(_root_, top_level_keys(conf))))

    resolvers.register_resolvers()
    OmegaConf.register_new_resolver("help_groups", help_groups, replace=True)
    OmegaConf.register_new_resolver("help_keys", help_keys, replace=True)


def groups_table(conf: Path, chosen: Mapping[str, Sequence[str]] | None = None, added: Sequence[Path] = ()) -> str:
    """The groups as a table: group, option (a star marks what is in force), what it is for.

    Args:
        conf: The folder of config.yaml and the groups.
        chosen: Names of the chosen options by group; None reads the defaults list of config.yaml.
        added: Folders with more options.
    """
    listed = [option for option in group_options(conf, chosen, added) if is_choice(option.name)]
    left = _column_width([option.group for option in listed])
    middle = _column_width([option.name for option in listed])
    lines: list[str] = []
    previous = ""
    for option in listed:
        group = "" if option.group == previous else option.group
        previous = option.group
        head = f"  {group:<{left}} {'*' if option.chosen else ' '} {option.name:<{middle}}"
        lines += _table_row(head, translate(option.note))
    return "\n".join(lines)


def keys_table(conf: Path, values: Mapping[str, str] | None = None) -> str:
    """The settings of config.yaml as a table: key, value, what changing it does.

    Args:
        conf: The folder of config.yaml.
        values: Values to show in place of those in the file, such as an `lr` that the optimizer brings.
    """
    listed = top_level_keys(conf)
    printed = [(values or {}).get(key.name, key.value) for key in listed]
    left, middle = _column_width([key.name for key in listed]), _column_width(printed)
    lines: list[str] = []
    for key, value in zip(listed, printed, strict=True):
        lines += _table_row(f"  {key.name:<{left}} {value:<{middle}}", translate(key.note))
    return "\n".join(lines)


def _composed_choices(root: DictConfig) -> dict[str, list[str]]:
    """The chosen options by group; of a group with several options Hydra keeps only what was typed."""
    choices = OmegaConf.select(root, "hydra.runtime.choices") or {}
    typed = [str(override).partition("=") for override in OmegaConf.select(root, "hydra.overrides.task") or ()]
    several = {key: re.findall(r"[\w.-]+", names) for key, _, names in typed if names.startswith("[")}
    return {str(group): [str(name)] for group, name in choices.items()} | several


def _composed_values(root: DictConfig, listed: Sequence[ConfigKey]) -> dict[str, str]:
    """The composed value of each key, without keys that have no value yet or hold a whole block."""
    values = {}
    for key in listed:
        try:
            value = OmegaConf.select(root, key.name, default="???")
        except OmegaConfBaseException:  # an interpolation that means something only inside a run
            continue
        if value is None or isinstance(value, bool):
            values[key.name] = "null" if value is None else str(value).lower()
        elif isinstance(value, float):
            values[key.name] = str(value).replace("e-0", "e-")
        elif isinstance(value, int | str) and value != "???":
            values[key.name] = str(value)
    return values


def _column_width(words: Sequence[str]) -> int:
    return min(MAX_NAME_WIDTH, max(map(len, words), default=0))


def _table_row(head: str, note: str) -> list[str]:
    """The lines of one table row; a long note continues below its first line."""
    width = page_width()
    beside = len(head) <= width // 2  # else the note starts on a line of its own
    indent = len(head) + 2 if beside else 8
    lines = wrap_words(note, width - indent, 0).split("\n")
    if not beside:
        lines.insert(0, "")
    return [f"{head}  {lines[0]}".rstrip(), *(" " * indent + line for line in lines[1:])]


def page_width() -> int:
    """Columns of the page: those of the terminal where there is one."""
    return min(terminal_width() or WIDTH, WIDEST)


def _escape_dollars(text: str) -> str:
    """The text with `$` doubled: the page passes through `string.Template`."""
    return text.replace("$", "$$")
