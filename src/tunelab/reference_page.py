"""The reference of every group, option and key as one Markdown page, made from the comments in conf/.

`python -m tunelab.reference_page` prints it; `make reference` writes it to docs/reference.md, and a test holds that the
page says what the comments say.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from tunelab.comments import Key, Option, keys, options, settings

HEAD = """# Reference

Made from the comments in `conf/` by `make reference`; edit those, not this page. `python train.py --help` prints the
groups and the keys of the first section, and `python train.py optimizer=sgd --cfg job` the whole config of a run.

Choose an option with `group=option`, change a key with `group.key=value`; keys of the first section stand without a
group. A star marks the option that is in force unless another is chosen.
"""


def reference(conf: Path) -> str:
    """The page, for the config folder `conf`."""
    parts = [HEAD, "## Keys of every run\n", table(settings(conf)), ""]
    for group, listed in groupby(options(conf), key=lambda option: option.group):
        parts += group_part(conf, group, list(listed))
    return "\n".join(parts).rstrip() + "\n"


def group_part(conf: Path, group: str, listed: list[Option]) -> Iterable[str]:
    """One group: its options, then the keys of each file, the chosen one first; what several share stands once."""
    yield f"## `{group}`\n"
    yield "| option | what it is for |\n|---|---|"
    yield from (f"| `{option.name}`{' *' if option.chosen else ''} | {cell(option.note)} |" for option in listed)
    yield ""
    told: set[Key] = set()
    for option in sorted(listed, key=lambda option: not option.chosen):
        fresh = [key for key in full_keys(conf / group / f"{option.name}.yaml", group) if key not in told]
        told |= set(fresh)
        if fresh:
            yield f"`{group}={option.name}`\n"
            yield table(fresh)
            yield ""


def full_keys(file: Path, group: str) -> list[Key]:
    """The keys of a file of a group by the names that the command line takes."""
    text = file.read_text()
    named = re.match(r"# @package (\S+)", text)
    package = named[1] if named else group.replace("/", ".")
    above = "" if package == "_global_" else f"{package}."
    return [replace(key, name=above + key.name) for key in keys(text)]


def table(listed: Iterable[Key]) -> str:
    """Keys with their value and what changing it does."""
    lines = [f"| `{key.name}` | {f'`{key.value}`' if key.value else ''} | {cell(key.note)} |" for key in listed]
    return "\n".join(["| key | value | what changing it does |", "|---|---|---|", *lines])


def cell(text: str) -> str:
    """A comment as a table cell."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(reference(Path(__file__).parents[2] / "conf"), end="")
