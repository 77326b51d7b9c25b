"""Initial trials: the default configuration and the best of earlier studies; and `best.yaml`, which carries the best
configuration of a study over, as an experiment file.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString

from tunelab.errors import ConfigError
from tunelab.search.search_config import SearchConfig, SearchRequest
from tunelab.search.space import Params, Space

BEST_PER_STUDY = 3  # configurations taken from each earlier study


def initial_trials(plan: SearchConfig, request: SearchRequest) -> list[tuple[Params, str]]:
    """What is tried first, with where it comes from.

    Raises:
        ConfigError: If a source of a warm start cannot be read or has nothing that fits the space.
    """
    found: list[tuple[Params, str]] = []
    if plan.default_trial and plan.sampler != "grid" and request.default is not None:
        found.append((dict(request.default), "default"))
    faults = []
    for source in plan.warm_start:
        known = earlier_configurations(Path(source), request.space, request.standard)
        if known:
            found += [(params, f"warm start from {source}") for params in known]
        else:
            faults.append(
                f"search.warm_start: {source} has no configuration of this space ({', '.join(request.space.always)}); "
                "give the folder of a study, or a best.yaml, whose values lie within it"
            )
    if faults:
        raise ConfigError.listing(faults)
    return found


def earlier_configurations(source: Path, space: Space, standard: Mapping[str, Any]) -> list[Params]:
    """The best configurations of an earlier study, or the one of a config file, that lie in this space.

    Args:
        source: A study's folder, or a file.
        space: What may be tried.
        standard: Values of settings that were not searched then.
    """
    try:
        if source.is_file():
            found = [flatten_config(yaml.safe_load(source.read_text(encoding="utf-8")))]
        else:
            lines = (source / "trials.jsonl").read_text(encoding="utf-8").splitlines()
            trials = [line for line in map(json.loads, lines) if line["value"] is not None]
            lower = json.loads((source / "study.json").read_text(encoding="utf-8"))["directions"][0] == "minimize"
            trials.sort(key=lambda line: line["value"] if lower else -line["value"])
            best = flatten_config(yaml.safe_load((source / BEST_CONFIG_FILE).read_text(encoding="utf-8")))
            found = [best | line["params"] for line in trials]
    except (OSError, ValueError, KeyError, yaml.YAMLError):
        return []
    fitting = []
    for values in found:
        whole = {**standard, **values}
        base = {key: whole.get(key) for key in space.always}
        params = {key: whole.get(key) for key in space.at(base)}
        if space.holds(params) and params not in fitting:
            fitting.append(params)
    return fitting[:BEST_PER_STUDY]


def flatten_config(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings by dotted name, chosen options by group."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key == "defaults" and not above:
            found |= {name.removeprefix("override /"): option for entry in value for name, option in entry.items()}
        elif isinstance(value, Mapping):
            found |= flatten_config(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = value
    return found


BEST_CONFIG_FILE = "best.yaml"
EXCLUDED_BLOCKS = ("trial", "search", "hydra", "resume")  # blocks that belong to the search, not to the configuration


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
        if key.partition(".")[0].partition("/")[0] in EXCLUDED_BLOCKS:
            continue
        if override.is_delete():
            delete_nested(values, key.split("."))
        elif key in groups:
            choices[key] = plain_value(override.value())
        else:
            set_nested(values, key.split("."), plain_value(override.value()))
    found = {"defaults": [{f"override /{key}": value} for key, value in choices.items()]} if choices else {}
    text: str = yaml.safe_dump({**found, **values}, sort_keys=False)
    return f"# @package _global_\n# {note}\n{text}"


def set_nested(block: dict[str, Any], names: Sequence[str], value: Any) -> None:
    """Set a value below nested names."""
    for name in names[:-1]:
        below = block.get(name)
        if not isinstance(below, dict):
            below = block[name] = {}
        block = below
    block[names[-1]] = value


def delete_nested(block: dict[str, Any], names: Sequence[str]) -> None:
    """Take out what earlier overrides set below nested names."""
    for name in names[:-1]:
        block = block.get(name) or {}
    block.pop(names[-1], None)


def plain_value(value: Any) -> Any:
    """A value of Hydra's grammar as YAML has it."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [plain_value(inner) for inner in value]
    if isinstance(value, dict):
        return {plain_value(name): plain_value(inner) for name, inner in value.items()}
    return value
