"""The initial trials of a search, and `best.yaml`: the best configuration of a study as an experiment file.

Initial trials are the default configuration and the best configurations of earlier studies (`search.warm_start`).
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString

from tunelab.config.flatten import flatten
from tunelab.config.override_text import plain_text
from tunelab.config.resource_paths import conf_directory
from tunelab.config.schema import SearchConfig
from tunelab.config.stored_files import (
    SHAPE_FAULTS,
    STUDY_FILE_ADVICE,
    UnreadableFileError,
    no_file_reason,
    read_stored_yaml,
)
from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.runs.atomic_files import read_json_lines
from tunelab.runs.redact import redact
from tunelab.runs.stored_json import read_stored_json
from tunelab.runs.study_folder import StudyFolder
from tunelab.search.search_config import SearchRequest
from tunelab.search.space import Params, Space

BEST_PER_STUDY = 3  # configurations taken from each earlier study


def initial_trials(search: SearchConfig, request: SearchRequest) -> list[tuple[Params, str]]:
    """The configurations to try before any other, each with its origin.

    Raises:
        ConfigError: If a warm start cannot be read, or none of its configurations lies in the space.
    """
    trials: list[tuple[Params, str]] = []
    if search.default_trial and search.sampler != "grid" and request.default_configuration is not None:
        trials.append((dict(request.default_configuration), "default"))
    faults = []
    for source in search.warm_start:
        configurations = earlier_configurations(Path(source), request.space, request.default_values)
        if configurations:
            trials += [(params, f"warm start from {source}") for params in configurations]
        else:
            faults.append(
                translate(
                    "search.warm_start: {source} has no configuration of this space ({names}); give the "
                    "folder of a study, or a best.yaml, whose values lie within it",
                    source=source,
                    names=", ".join(request.space.unconditional),
                )
            )
    if faults:
        raise ConfigError.listing(faults)
    return trials


def earlier_configurations(source: Path, space: Space, default_values: Mapping[str, Any]) -> list[Params]:
    """The best configurations of an earlier study, or the one of a config file, that lie in the space.

    Args:
        source: The folder of a study, or a file.
        space: The settings that vary now.
        default_values: Values of settings that did not vary then.
    """
    if (reason := no_file_reason(source)) and not source.is_dir():
        raise ConfigError(
            translate(
                "search.warm_start: {source} {reason}; give the folder of a study, or a best.yaml",
                source=source,
                reason=reason,
            )
        )
    try:
        if source.is_file():
            candidates = [flatten_config(yaml.safe_load(read_stored_yaml(source)))]
        else:
            study = StudyFolder(source)
            trials = [trial for trial in read_json_lines(study.trials) if trial["value"] is not None]
            lower = read_stored_json(study.summary, STUDY_FILE_ADVICE)["directions"][0] == "minimize"
            trials.sort(key=lambda trial: trial["value"] if lower else -trial["value"])
            best = flatten_config(yaml.safe_load(read_stored_yaml(study.best)))
            candidates = [best | trial["params"] for trial in trials]
    except UnreadableFileError as fault:
        raise ConfigError(translate("search.warm_start: {fault}", fault=fault)) from fault
    except (OSError, yaml.YAMLError, *SHAPE_FAULTS):
        return []
    fitting = []
    for values in candidates:
        merged = {**default_values, **values}
        base = {key: merged.get(key) for key in space.unconditional}
        params = {key: merged.get(key) for key in space.active_dimensions(base)}
        if space.contains(params) and params not in fitting:
            fitting.append(params)
    return fitting[:BEST_PER_STUDY]


def flatten_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings by dotted name, and chosen options by config group."""
    options = {
        name.removeprefix("override /"): option
        for entry in values.get("defaults", ())
        for name, option in entry.items()
    }
    return options | flatten({key: value for key, value in values.items() if key != "defaults"})


EXCLUDED_BLOCKS = ("trial", "search", "hydra", "resume")  # blocks that belong to the search, not to the configuration


def experiment_text(note: str, overrides: Sequence[str], groups: Collection[str], folders: Sequence[Path] = ()) -> str:
    """The text of an experiment file that is equivalent to overrides.

    Args:
        note: Its first line, a sentence.
        overrides: As on the command line; a later one wins over an earlier.
        groups: Keys that choose an option of a config group rather than set a value.
        folders: Where options lie besides conf/; an experiment cannot name another one, so what one of them sets is
            written out.
    """
    choices: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for word in overrides:
        if word.startswith("experiment=") and (name := plain_text(word)):
            add_experiment(name, [*folders, conf_directory()], choices, values)
    secret = list[str]()
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.key_or_group
        if key.partition(".")[0].partition("/")[0] in (*EXCLUDED_BLOCKS, "experiment"):
            continue
        if override.is_delete():
            delete_nested(values, key.split("."))
        elif key in groups:
            choices[key] = plain_value(override.value())
        else:
            name, value = key.rpartition(".")[2], plain_value(override.value())
            if redact({name: value}) != {name: value}:
                secret.append(key)
            else:
                set_nested(values, key.split("."), value)
    defaults = {"defaults": [{f"override /{key}": value} for key, value in choices.items()]} if choices else {}
    text: str = yaml.safe_dump({**defaults, **values}, sort_keys=False)
    left_out = f"# Left out, as it held a secret: {', '.join(secret)}; type it beside this file.\n" if secret else ""
    return f"# @package _global_\n# {note}\n{left_out}{text}"


def add_experiment(name: str, folders: Sequence[Path], choices: dict[str, Any], values: dict[str, Any]) -> None:
    """Add the choices and values of an experiment file.

    Args:
        name: As chosen, such as `mine` or `recipes/bert`.
        folders: Where it may lie, in a folder `experiment`; the first one that has it counts.
        choices: Receives the options of config groups.
        values: Receives the other settings.
    """
    file = next((path for folder in folders if (path := folder / "experiment" / f"{name}.yaml").is_file()), None)
    text = yaml.safe_load(file.read_text(encoding="utf-8")) if file is not None else None
    for key, value in (text if isinstance(text, dict) else {}).items():
        if key == "defaults":
            entries = [entry for entry in value if isinstance(entry, dict)]
            choices |= {k.removeprefix("override /"): v for entry in entries for k, v in entry.items()}
        elif key not in EXCLUDED_BLOCKS:
            merge_nested(values, key, value)


def merge_nested(block: dict[str, Any], key: str, value: Any) -> None:
    """Set a value, a mapping key by key."""
    if isinstance(value, dict) and isinstance(block.get(key), dict):
        for name, inner in value.items():
            merge_nested(block[key], name, inner)
    else:
        block[key] = value


def set_nested(block: dict[str, Any], names: Sequence[str], value: Any) -> None:
    """Set a value below nested names."""
    for name in names[:-1]:
        below = block.get(name)
        if not isinstance(below, dict):
            below = block[name] = {}
        block = below
    block[names[-1]] = value


def delete_nested(block: dict[str, Any], names: Sequence[str]) -> None:
    """Remove a value below nested names."""
    for name in names[:-1]:
        block = block.get(name) or {}
    block.pop(names[-1], None)


def plain_value(value: Any) -> Any:
    """A value that Hydra parsed, as plain YAML value."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [plain_value(inner) for inner in value]
    if isinstance(value, dict):
        return {plain_value(name): plain_value(inner) for name, inner in value.items()}
    return value
