"""The best configuration as an experiment file, and back: `python train.py experiment=STUDY/best` runs it."""

from collections.abc import Collection, Sequence
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString

FILE = "best.yaml"
BESIDE = ("trial", "search", "hydra", "resume")  # blocks that belong to the search, not to the configuration


def experiment_text(note: str, overrides: Sequence[str], groups: Collection[str]) -> str:
    """A config file that does what these overrides do.

    Args:
        note: Its first line, a sentence.
        overrides: As on the command line; a later one wins over an earlier.
        groups: Keys that choose an option rather than set a value.
    """
    choices: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.key_or_group
        if key.partition(".")[0].partition("/")[0] in BESIDE:
            continue
        if override.is_delete():
            forget(values, key.split("."))
        elif key in groups:
            choices[key] = plain(override.value())
        else:
            place(values, key.split("."), plain(override.value()))
    found = {"defaults": [{f"override /{key}": value} for key, value in choices.items()]} if choices else {}
    text: str = yaml.safe_dump({**found, **values}, sort_keys=False)
    return f"# @package _global_\n# {note}\n{text}"


def place(block: dict[str, Any], names: Sequence[str], value: Any) -> None:
    """Set a value below nested names."""
    for name in names[:-1]:
        below = block.get(name)
        if not isinstance(below, dict):
            below = block[name] = {}
        block = below
    block[names[-1]] = value


def forget(block: dict[str, Any], names: Sequence[str]) -> None:
    """Take out what earlier overrides set below nested names."""
    for name in names[:-1]:
        block = block.get(name) or {}
    block.pop(names[-1], None)


def plain(value: Any) -> Any:
    """A value of Hydra's grammar as YAML has it."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, dict):
        return {plain(name): plain(inner) for name, inner in value.items()}
    return value
