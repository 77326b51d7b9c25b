"""What a run may be asked for.  The only file that says which values are legal."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from math import isfinite
from typing import Any, cast

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tunelab import build
from tunelab.errors import ConfigError


@dataclass
class Run:
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

    @property
    def plain(self) -> dict[str, Any]:
        """Every setting as plain Python values, in the order of this class."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}


RANGES: Mapping[str, tuple[float, float]] = {  # smallest and largest legal value
    "lr": (0, 100),
    "batch_size": (1, 2**20),
    "micro_tokens": (1, 2**30),
    "max_epochs": (1, 10**6),
    "max_steps": (1, 10**12),
    "seed": (0, 2**63 - 1),
    "regularization.weight_decay": (0, 10),
    "regularization.dropout": (0, 0.99),
    "scheduler.warmup": (0, 10**9),
    "scheduler.floor": (0, 1),
    "trainer.gradient_clip_val": (0, 10**9),
    "trainer.log_every_n_steps": (1, 10**9),
    "callbacks.patience": (1, 10**6),
    "callbacks.save_every": (0, 10**9),
    "data.workers": (0, 256),
    "data.split.validation": (0, 0.9),
    "data.split.test": (0, 0.9),
    "eval.batch_size": (1, 2**20),
    "eval.max_new_tokens": (1, 2**17),
}
CHOICES: Mapping[str, tuple[Any, ...]] = {
    "mode": ("auto", "min", "max"),
    "adapter.kind": ("full",),
    "trainer.precision": ("auto", "32-true", "32", "bf16-mixed", "bf16", "64-true"),
    "data.task": ("instruction", "classification", "regression"),
    "data.too_long": ("drop", "truncate_prompt", "truncate_answer", "error"),
    "data.on_bad": ("error", "skip"),
    "data.train_on": ("answers", "last_answer", "all"),
    "model.size": ("tiny", "base"),
}
ABOVE_ZERO = {"lr"}


def check(config: DictConfig) -> Run:
    """The settings of a run, typed, if they can be honoured.

    Raises:
        ConfigError: Naming every fault at once, each with a way out.
    """
    values, faults = typed(config)
    faults += [f for name, (low, high) in RANGES.items() if (f := out_of_range(name, lookup(values, name), low, high))]
    for name, legal in CHOICES.items():
        if (got := lookup(values, name)) is not None and got not in legal:
            near = get_close_matches(str(got), [str(value) for value in legal], 1)
            hint = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(map(str, legal))}"
            faults.append(f"{name}={got} is unknown; {hint}")
    for block in ("optimizer", "scheduler"):
        if "_target_" in values.get(block, {}):
            faults += build.faults_of(values[block], block)
        elif block in values:
            faults.append(f"{block} names no _target_; choose one by {block}=NAME, see --help")
    if lookup(values, "data.train") in (None, "???"):
        faults.append(
            "data.train is not set; name the file to learn from: data.train=FILE (json, jsonl, csv, tsv, parquet)"
        )
    if faults:
        raise ConfigError.listing(faults)
    return Run(**values)


def typed(config: DictConfig) -> tuple[dict[str, Any], list[str]]:
    """Each top-level key converted to its declared type; what cannot be is told instead."""
    values: dict[str, Any] = {}
    faults: list[str] = []
    known = [entry.name for entry in fields(Run)]
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
            plain = OmegaConf.to_container(OmegaConf.create({key: config[key]}), resolve=False)
            given = cast(dict[str, Any], plain)[key] if not OmegaConf.is_config(config[key]) else resolved(config, key)
            merged = OmegaConf.merge(OmegaConf.structured(Run), {key: given})
            values[key] = cast(dict[str, Any], OmegaConf.to_container(merged, resolve=True))[key]
        except OmegaConfBaseException as fault:
            faults.append(f"{key}: {build.first_line(fault)}")
    return values, faults


def resolved(config: DictConfig, key: str) -> Any:
    """A block as plain values, every interpolation followed; `???` stays where something is missing."""
    return OmegaConf.to_container(config[key], resolve=True)


def lookup(values: Mapping[str, Any], name: str) -> Any:
    """The value at a dotted name; None where there is none."""
    found: Any = values
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def out_of_range(name: str, value: Any, low: float, high: float) -> str | None:
    """What is wrong with a number; None if nothing is (or nothing was given)."""
    if value is None or value == "???":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return f"{name}={value} is not a number"
    if value < low or value > high or (name in ABOVE_ZERO and value <= 0):
        least = "above 0" if name in ABOVE_ZERO else f"at least {low:.15g}"
        return f"{name}={value} is out of range; it must be {least} and at most {high:.15g}"
    return None
