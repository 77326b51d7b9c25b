"""Configurations to try before any other: the one without a search, and the best of earlier searches."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tunelab.errors import ConfigError
from tunelab.search.plan import Plan
from tunelab.search.request import Request
from tunelab.search.space import Params, Space
from tunelab.search.winner import FILE

BEST = 3  # configurations taken from each earlier study


def owed(plan: Plan, request: Request) -> list[tuple[Params, str]]:
    """What is tried first, with where it comes from.

    Raises:
        ConfigError: If a source of a warm start cannot be read or has nothing that fits the space.
    """
    found: list[tuple[Params, str]] = []
    if plan.default_trial and plan.sampler != "grid" and request.default is not None:
        found.append((dict(request.default), "default"))
    faults = []
    for source in plan.warm_start:
        known = earlier(Path(source), request.space, request.standard)
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


def earlier(source: Path, space: Space, standard: Mapping[str, Any]) -> list[Params]:
    """The best configurations of an earlier study, or the one of a config file, that lie in this space.

    Args:
        source: A study's folder, or a file.
        space: What may be tried.
        standard: Values of settings that were not searched then.
    """
    try:
        if source.is_file():
            found = [flat(yaml.safe_load(source.read_text(encoding="utf-8")))]
        else:
            lines = (source / "trials.jsonl").read_text(encoding="utf-8").splitlines()
            trials = [line for line in map(json.loads, lines) if line["value"] is not None]
            lower = json.loads((source / "study.json").read_text(encoding="utf-8"))["directions"][0] == "minimize"
            trials.sort(key=lambda line: line["value"] if lower else -line["value"])
            best = flat(yaml.safe_load((source / FILE).read_text(encoding="utf-8")))
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
    return fitting[:BEST]


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings by dotted name, chosen options by group."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key == "defaults" and not above:
            found |= {name.removeprefix("override /"): option for entry in value for name, option in entry.items()}
        elif isinstance(value, Mapping):
            found |= flat(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = value
    return found
