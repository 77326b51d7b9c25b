"""What a multirun asks for: the fixed settings, the space, and what is wrong with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from tunelab.errors import ConfigError
from tunelab.legal import CHOICES as LEGAL
from tunelab.legal import RANGES, out_of_range, unknown_choice
from tunelab.search.dimension import Choice
from tunelab.search.space import Space, build_space

WITHIN = "search.space.params."
OWN = ("search", "trial")  # blocks that speak of the search, not of a training


@dataclass(frozen=True)
class Request:
    """A search, as it was asked for.

    Attributes:
        fixed: Overrides that every trial has.
        space: What varies.
        notes: What is worth knowing before it starts.
        default: The configuration without a search; None where it lies outside the space.
        outside: The settings whose value without a search lies outside the space.
        arguments: The overrides as they were typed, what varies among them.
        standard: The value of every varying setting without a search.
    """

    fixed: tuple[str, ...]
    space: Space
    notes: tuple[str, ...]
    default: Mapping[str, Any] | None
    outside: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    standard: Mapping[str, Any] = field(default_factory=dict)


def request_of(config: DictConfig, arguments: Sequence[str]) -> Request:
    """The request that a command line makes.

    Args:
        config: As composed without what varies.
        arguments: The task overrides of the command line.

    Raises:
        ConfigError: Naming every fault at once.
    """
    found = OverridesParser.create().parse_overrides(list(arguments))
    fixed, varied = list[str](), dict[str, Any]()
    for override in found:
        key, line = override.key_or_group, str(override.input_line)
        if override.is_sweep_override():
            varied[key.removeprefix(WITHIN)] = line.partition("=")[2]
        elif key.partition(".")[0].partition("/")[0] not in OWN:
            fixed.append(line)
    described = OmegaConf.to_container(config.search.space, resolve=True)
    assert isinstance(described, dict)
    params = {**(described["params"] or {}), **varied}
    when = dict(described["when"] or {})
    standard = {key: default_of(config, key) for key in [*params, *(k for block in when.values() for k in block or {})]}
    try:
        space = build_space(params, when, standard)
    except ValueError as fault:
        raise ConfigError.listing(str(fault).splitlines()) from fault
    if faults := illegal(space):
        raise ConfigError.listing(faults)
    base = {key: standard[key] for key in space.always}
    inner = {key: standard[key] for key in space.at(base)}
    default = inner if space.holds(inner) else None
    outside = tuple(f"{key}={inner[key]}" for key, known in space.at(base).items() if not known.holds(inner[key]))
    return Request(tuple(fixed), space, tuple(advice(space)), default, outside, tuple(arguments), standard)


def default_of(config: DictConfig, key: str) -> Any:
    """The value of a setting, or the option of a group, without a search."""
    chosen = OmegaConf.select(config, "hydra.runtime.choices") or {}
    if key in chosen:
        return chosen[key]
    value = OmegaConf.select(config, key, default=None)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def illegal(space: Space) -> list[str]:
    """Values that no run would accept."""
    faults = []
    for key, found in space.all().items():
        ends = found.values if isinstance(found, Choice) else (found.low, found.high)
        if key in RANGES:
            faults += [fault for end in ends if (fault := out_of_range(key, end, *RANGES[key]))]
        if key in LEGAL:
            faults += [fault for end in ends if (fault := unknown_choice(key, end))]
    return faults


def advice(space: Space) -> list[str]:
    """What the space does that may surprise, in words."""
    known = space.all()
    notes = [f"{key}: {found.told()}" for key, found in known.items()]
    if "batch_size" in known and "lr" not in known:
        notes.append("batch_size varies and lr does not: the best lr moves with the batch size, so vary both")
    if longer := sorted({"max_steps", "max_epochs"} & set(known)):
        notes.append(
            f"{' and '.join(longer)} varies: longer runs mostly win; early stopping finds the length by itself"
        )
    if "seed" in known:
        notes.append("seed varies: its best value means nothing; its spread is the noise that others must beat")
    return notes
