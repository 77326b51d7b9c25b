"""The typed config of a run, and the validation of all of it at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, cast

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tunelab.config import instantiate, resolvers
from tunelab.config.constraints import CHOICES, RANGES, choice_fault, range_fault
from tunelab.config.cross_checks import (
    finder_faults,
    model_faults,
    optimizer_argument_faults,
    optimizer_faults,
    regularization_faults,
)
from tunelab.data.folds import fold_faults
from tunelab.data.mixture import mixture_faults
from tunelab.errors import ConfigError, first_line

resolvers.register_resolvers()


@dataclass
class RunConfig:
    """One run, fully described.  conf/config.yaml gives the values, this gives the types."""

    lr: float = MISSING
    own_lr: dict[str, float] = field(default_factory=dict)
    batch_size: int = MISSING
    micro_tokens: int = MISSING
    max_epochs: int = MISSING
    max_steps: int | None = None
    seed: int = MISSING
    monitor: str = MISSING
    mode: str = MISSING
    name: str = MISSING
    resume: str | None = None
    find: str | None = None
    test: bool = True
    save: bool = True
    eval: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    regularization: dict[str, Any] = field(default_factory=dict)
    adapter: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)
    trial: dict[str, Any] = field(default_factory=lambda: {"id": None, "study": None, "parent": None, "until": None})
    cv: dict[str, Any] = field(default_factory=lambda: {"folds": None, "fold": None, "group": None})

    @property
    def plain(self) -> dict[str, Any]:
        """Every setting as plain Python values, in the order of this class."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}


def validate_config(config: DictConfig) -> RunConfig:
    """The settings of a run, typed, if they can be honoured.

    Raises:
        ConfigError: Naming every fault at once, each with a way out.
    """
    values, faults = convert_types(config)
    faults += [f for name, (low, high) in RANGES.items() if (f := range_fault(name, lookup(values, name), low, high))]
    faults += [fault for name in CHOICES if (fault := choice_fault(name, lookup(values, name)))]
    for block in ("optimizer", "scheduler"):
        if "_target_" in values.get(block, {}):
            faults += instantiate.target_faults(values[block], block)
        elif block in values:
            faults.append(f"{block} names no _target_; choose one by {block}=NAME, see --help")
    data = values.get("data", {})
    faults += mixture_faults(data)
    faults += [
        f"data.{name} is not set; name the column of your file that holds it: data.{name}=COLUMN"
        for name, value in data.items()
        if value == "???" and name != "train"
    ]
    faults += model_faults(values)
    faults += optimizer_faults(values)
    faults += fold_faults(values)
    faults += regularization_faults(values)
    faults += finder_faults(values)
    if "_target_" in values.get("optimizer", {}) and not any("optimizer" in fault for fault in faults):
        faults += optimizer_argument_faults(values["optimizer"])
    if data.get("mix") is not None:
        data["train"] = None
    if faults:
        raise ConfigError.listing(faults)
    return RunConfig(**values)


def convert_types(config: DictConfig) -> tuple[dict[str, Any], list[str]]:
    """Each top-level key converted to its declared type; what cannot be is told instead."""
    values: dict[str, Any] = {}
    faults: list[str] = []
    known = [entry.name for entry in fields(RunConfig)]
    for raw in config:
        key = str(raw)
        if key not in known:
            near = get_close_matches(key, known, 1)
            faults.append(f"'{key}' is no setting; " + (f"did you mean '{near[0]}'?" if near else "see --help"))
            continue
        if OmegaConf.is_missing(config, key):
            faults.append(f"{key} is not set and has no default; give {key}=VALUE")
            continue
        try:
            given = resolve_block(config, key) if OmegaConf.is_config(config[key]) else config[key]
            merged = OmegaConf.merge(key_schema(key), {key: given})
            values[key] = cast(dict[str, Any], OmegaConf.to_container(merged, resolve=True))[key]
        except OmegaConfBaseException as fault:
            faults.append(f"{key}: {first_line(fault)}")
    return values, faults


@cache
def key_schema(key: str) -> DictConfig:
    """The declared type of one key, by itself: the whole schema would be copied for each key."""
    entry = next(entry for entry in fields(RunConfig) if entry.name == key)
    made = make_dataclass(key, [(key, entry.type, field(default=MISSING))])
    return cast(DictConfig, OmegaConf.structured(made))


def resolve_block(config: DictConfig, key: str) -> Any:
    """A block as plain values, every interpolation followed; `???` stays where something is missing."""
    return OmegaConf.to_container(config[key], resolve=True)


def lookup(values: Mapping[str, Any], name: str) -> Any:
    """The value at a dotted name; None where there is none."""
    found: Any = values
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
