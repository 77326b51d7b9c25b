"""The validation of a whole config: types, ranges, unknown keys, contradictions and targets, all faults at once."""

import sys
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tunelab.config import instantiate, plugins, resolvers
from tunelab.config.blocks import NOT_SET, JsonValue, UnknownKeyFault, missing_fault
from tunelab.config.cross_checks import cross_faults
from tunelab.config.flatten import flatten
from tunelab.config.renames import rename_old_names
from tunelab.config.schema import OUR_MODULE, DataConfig, RunConfig
from tunelab.errors import ConfigError, first_line
from tunelab.language.translation import translate

resolvers.register_resolvers()


def validate_config(config: DictConfig, *, for_training: bool = True) -> RunConfig:
    """The settings of a run, typed, if they can be honoured.

    Args:
        config: As composed, or as read from a run folder.
        for_training: Whether optimizer, schedule and callbacks will be built; reading a trained run needs none of them.

    Raises:
        ConfigError: Naming every fault at once, each with a way out.
    """
    plugins.restore_environment()
    values, faults = resolve_values(rename_old_names(config))
    unreadable = {missing_fault(str(key)) for key in config if key not in values}
    register_outside_task(values.get("data"), faults)
    run = RunConfig.parse(values, "", faults)
    if not for_training:
        faults = note_unknown_keys(faults)
    faults += cross_faults(run)
    if for_training:
        faults += nonfinite_faults(values, faults)
        faults += target_faults(run, known_faults=faults)
    if faults := [fault for fault in dict.fromkeys(faults) if fault not in unreadable]:
        raise ConfigError.listing(faults)
    return run


def nonfinite_faults(values: Mapping[str, JsonValue], known: Sequence[str]) -> list[str]:
    """Numbers that are NaN or infinite, in any block: comparisons with them decide nothing."""
    return [
        translate(
            "{name}={value} is not a number; every setting with a number needs a finite one", name=name, value=value
        )
        for name, value in flatten(values, index_lists=True).items()
        if isinstance(value, float) and not isfinite(value) and not any(fault.startswith(f"{name}=") for fault in known)
    ]


def note_unknown_keys(faults: Sequence[str]) -> list[str]:
    """The faults without those of unknown keys, which are said instead: a finished run may be older than the schema."""
    unknown = [fault.key for fault in faults if isinstance(fault, UnknownKeyFault)]
    if unknown:
        print(
            translate(
                "note: the run has settings that are unknown today and do nothing here: {names}",
                names=", ".join(unknown),
            ),
            file=sys.stderr,
        )
    return [fault for fault in faults if not isinstance(fault, UnknownKeyFault)]


def register_outside_task(data: JsonValue, faults: list[str]) -> None:
    """Make the `data_config` of a task known that `data.task` names by its dotted name."""
    task = data.get("task") if isinstance(data, Mapping) else None
    if not isinstance(task, str) or "." not in task or task in DataConfig.variants:
        return
    try:
        kind = getattr(instantiate.import_target(task), "data_config", None)
    except ConfigError as fault:
        faults.append(f"data.task: {fault}")
        return
    if isinstance(kind, type) and issubclass(kind, DataConfig) and kind is not DataConfig:
        DataConfig.variants[task] = kind


def resolve_values(config: DictConfig) -> tuple[dict[str, JsonValue], list[str]]:
    """Every block as plain values, each interpolation followed, and a fault for each block where that fails."""
    values, faults = dict[str, JsonValue](), list[str]()
    for key in map(str, config):
        try:
            value = NOT_SET if OmegaConf.is_missing(config, key) else config[key]
            resolved = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            values[key] = cast(JsonValue, resolved)
        except OmegaConfBaseException as fault:
            faults.append(f"{key}: {first_line(fault)}")
    return values, faults


def same_key(fault: str, other: str) -> bool:
    """Whether two faults speak of one key, such as `scheduler.warmup=...`."""
    return "=" in fault and fault.partition("=")[0] == other.partition("=")[0]


def target_faults(run: RunConfig, known_faults: list[str]) -> list[str]:
    """Faults of the classes and functions that a run names, and of their arguments."""
    faults = list[str]()
    for name, target in (("optimizer", run.optimizer), ("scheduler", run.scheduler)):
        reported = instantiate.target_faults(target, name) if target.target else []
        unusable = [fault for fault in reported if not any(same_key(fault, known) for known in known_faults)]
        faults += unusable or (instantiate.own_faults(target, run) if target.target else [])
    parts = {
        f"{block}.{name}": target
        for block, targets in (
            ("callbacks", run.callbacks.targets),
            ("regularization", run.regularization.targets),
            ("logger", run.logger.targets),
            ("metrics", run.metrics.targets),
        )
        for name, target in targets.items()
    }
    if run.module.target != OUR_MODULE:
        parts["module"] = run.module
    for name, target in parts.items():
        faults += instantiate.target_faults(target, name) if target.target else []
    if run.optimizer.target and not any(
        "optimizer" in fault or fault.startswith("lr") for fault in [*known_faults, *faults]
    ):
        faults += instantiate.optimizer_argument_faults(run.optimizer)
    return faults
