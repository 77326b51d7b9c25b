"""Old names of settings and targets: configs, command lines and run folders that have them stay readable."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from omegaconf import DictConfig, OmegaConf

from tunelab.language.translation import translate

if TYPE_CHECKING:  # `--help` does without the schema
    from tunelab.config.blocks import JsonValue

RENAMED_KEYS: Mapping[str, str] = {
    "own_lr": "default_lr",
    "scheduler.floor": "scheduler.min_lr_ratio",
    "callbacks.gap_rows": "callbacks.train_eval_rows",
    "search.slots": "search.parallel_trials",
    "search.judge": "search.test_best",
    "search.sampler_options.replaced": "search.sampler_options.replaced_fraction",
    "search.sampler_options.factor": "search.sampler_options.perturbation_factor",
    "search.sampler_options.resampled": "search.sampler_options.resample_probability",
}
_CURVES = ("constant", "linear", "cosine", "polynomial", "exponential", "inverse_sqrt")
_PHASES = ("cosine_restarts", "wsd", "stepwise", "one_cycle")
MOVED_TARGETS: Mapping[str, str] = {
    **{f"tunelab.optim.schedule.{name}": f"tunelab.optim.schedules.{name}" for name in _CURVES},
    **{f"tunelab.optim.phases.{name}": f"tunelab.optim.schedules.{name}" for name in _PHASES},
    "tunelab.optim.plateau.Plateau": "tunelab.optim.schedules.Plateau",
}
SPACE_BLOCKS = ("search.space.params", "search.space.when")  # their keys are names of settings
_noted = set[str]()  # old names that this process has reported


def rename_overrides(overrides: Sequence[str]) -> list[str]:
    """Overrides of a command line with every old key under its new name."""
    return [rename_override(override) for override in overrides]


def rename_override(override: str) -> str:
    """One override, with an old key or target under its new name; its value stays as it was typed."""
    start = len(override) - len(override.lstrip("+~"))
    key, equals, value = override[start:].partition("=")
    new_key, new_value = rename_key(key), rename_target(value) if key.endswith("_target_") else value
    return f"{override[:start]}{new_key}{equals}{new_value}"


def rename_key(key: str) -> str:
    """The name of today for a dotted key, also for one below a renamed block, such as `own_lr.tiny`."""
    for old, new in RENAMED_KEYS.items():
        if key == old or key.startswith(f"{old}."):
            note(old, new)
            return f"{new}{key.removeprefix(old)}"
    return key


def rename_target(target: str) -> str:
    """The place of today for a function or class."""
    if new := MOVED_TARGETS.get(target):
        note(target, new)
    return new or target


def rename_old_names(config: DictConfig) -> DictConfig:
    """A config with every old name replaced; the config itself where it has none.

    Where the old and the new name stand side by side, the old one wins: the new one is there because our own files set
    it, and whoever wrote the old one wrote it on top of them.
    """
    plain = cast("dict[str, JsonValue]", OmegaConf.to_container(config, resolve=False))
    renamed = rename_in_block(plain, "")
    return config if renamed == plain else OmegaConf.create(renamed)


def rename_in_block(block: "Mapping[str, JsonValue]", above: str) -> "dict[str, JsonValue]":
    """A block with old keys, targets and references replaced, everything in its place."""
    renamed: dict[str, JsonValue] = {}
    replaced = set[str]()
    for key, value in block.items():
        old = f"{above}{key}"
        new = rename_key(old).removeprefix(above) if old in RENAMED_KEYS else key
        if key in replaced:  # its value is the one that stood under the old name
            continue
        if new != key:
            replaced.add(new)
        renamed[new] = rename_value(value, f"{above}{new}", is_target=key == "_target_")
    return renamed


def rename_value(value: "JsonValue", name: str, *, is_target: bool) -> "JsonValue":
    """A value with old keys inside it, an old target, or references to old keys replaced."""
    if isinstance(value, Mapping):
        if name in SPACE_BLOCKS:
            return {rename_override(key): rename_value(entry, "", is_target=False) for key, entry in value.items()}
        return rename_in_block(value, f"{name}.")
    if isinstance(value, str):
        for old, new in RENAMED_KEYS.items() if "${" in value else ():
            value = value.replace(f"${{{old}.", f"${{{new}.").replace(f"${{{old}}}", f"${{{new}}}")
        return rename_target(value) if is_target else value
    return value


def note(old: str, new: str) -> None:
    """Say once that a name is an old one."""
    if old not in _noted:
        _noted.add(old)
        print(translate("note: {old} is called {new} now; the old name still works", old=old, new=new), file=sys.stderr)
