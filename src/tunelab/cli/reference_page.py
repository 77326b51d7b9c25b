"""The reference of every group, option and key as one Markdown page, from the comments in conf/.

`python -m tunelab.cli.reference_page` prints it; `make reference` writes it to docs/reference.md, and a test holds
the page against the comments.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from tunelab.cli.config_comments import ConfigKey, GroupOption, config_keys, group_options, top_level_keys
from tunelab.config.resource_paths import conf_directory

PAGE_HEADER = """# Reference

Made from the comments in `conf/` by `make reference`; edit those, not this page. `python train.py --help` prints the
groups and the keys of the first section, and `python train.py optimizer=sgd --cfg job` the whole config of a run.

Choose an option with `group=option`, change a key with `group.key=value`; keys of the first section stand without a
group. A star marks the option that is in force unless another is chosen.
"""


def render_reference(conf: Path) -> str:
    """The reference page of the config folder `conf`."""
    parts = [PAGE_HEADER, "## Keys of every run\n", markdown_key_table(top_level_keys(conf)), ""]
    for group, listed in groupby(group_options(conf), key=lambda option: option.group):
        parts += group_section(conf, group, list(listed))
    return "\n".join(parts).rstrip() + "\n"


def group_section(conf: Path, group: str, listed: list[GroupOption]) -> Iterable[str]:
    """One group: its options, then the keys of each file, the chosen one first; what several share stands once."""
    yield f"## `{group}`\n"
    yield "| option | what it is for |\n|---|---|"
    yield from (f"| `{option.name}`{' *' if option.chosen else ''} | {escape_cell(option.note)} |" for option in listed)
    yield ""
    written: set[ConfigKey] = set()
    for option in sorted(listed, key=lambda option: not option.chosen):
        fresh = [key for key in qualified_keys(conf / group / f"{option.name}.yaml", group) if key not in written]
        written |= set(fresh)
        if fresh:
            yield f"`{group}={option.name}`\n"
            yield markdown_key_table(fresh)
            yield ""


def qualified_keys(file: Path, group: str) -> list[ConfigKey]:
    """The keys of a group's file by the names that the command line takes."""
    text = file.read_text()
    named = re.match(r"# @package (\S+)", text)
    package = named[1] if named else group.replace("/", ".")
    above = "" if package == "_global_" else f"{package}."
    return [replace(key, name=above + key.name) for key in config_keys(text)]


def markdown_key_table(listed: Iterable[ConfigKey]) -> str:
    """A Markdown table of keys: name, value, what changing it does."""
    lines = [f"| `{key.name}` | {f'`{key.value}`' if key.value else ''} | {escape_cell(key.note)} |" for key in listed]
    return "\n".join(["| key | value | what changing it does |", "|---|---|---|", *lines])


def escape_cell(text: str) -> str:
    """A comment as a Markdown table cell."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(render_reference(conf_directory()), end="")
