"""Python objects from `_target_` names in a config; nothing outside the allow-list is ever called.

A config may come from a run directory somebody else made, so free import paths would let it run anything.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

from hydra.utils import get_method

from tunelab.errors import ConfigError, first_line

ALLOWED_TARGETS = (
    "torch.optim.",
    "tunelab.optim.",
    "tunelab.tasks.",
    "tunelab.training.callbacks.",
    "lightning.pytorch.callbacks.",
    "bitsandbytes.optim.",
)
OPTIONAL_PACKAGES = {"bitsandbytes"}  # packages that need not be there until a run trains with them
RESERVED_KEYS = {"_target_"}  # keys of a block that are not arguments
RUNTIME_ARGUMENTS = {"params", "step", "total", "hidden"}  # arguments that the code hands over, never the config


def is_allowed_target(target: str) -> bool:
    """Whether a target lies under an allowed name and is written as plain dotted words."""
    return target.startswith(ALLOWED_TARGETS) and all(
        part.isidentifier() and not part.startswith("_") for part in target.split(".")
    )


def import_target(target: str) -> Callable[..., Any]:
    """The function or class behind an allowed dotted name.

    Raises:
        ConfigError: If the name is not allowed or names nothing that can be called.
    """
    if not is_allowed_target(target):
        raise ConfigError(f"_target_ '{target}' is not allowed; targets must lie under {', '.join(ALLOWED_TARGETS)}")
    if package := missing_package(target):
        raise ConfigError(
            f"_target_ '{target}' needs the package {package}, which is not installed; pip install {package}"
        )
    try:
        found: Callable[..., Any] = get_method(target)
    except Exception as fault:
        raise ConfigError(f"_target_ '{target}' does not exist ({first_line(fault)})") from fault
    home = getattr(found, "__module__", "") or ""
    if not f"{home}.".startswith(ALLOWED_TARGETS):  # a name such as torch.optim.adamw.torch.load only passes through
        raise ConfigError(
            f"_target_ '{target}' only borrows its name: it is {home}.{getattr(found, '__name__', found)}"
        )
    return found


def missing_package(target: str) -> str | None:
    """The optional package that a target needs and that is not installed."""
    home = target.partition(".")[0]
    return home if home in OPTIONAL_PACKAGES and find_spec(home) is None else None


def target_faults(block: Mapping[str, Any], where: str) -> list[str]:
    """What is wrong with a block that names a `_target_`: unknown target, unknown, misspelt or empty arguments.

    A target in a package that is not installed is none: a trained run is read where its optimizer is not needed.
    """
    from difflib import get_close_matches

    if missing_package(str(block["_target_"])):
        return []
    try:
        target = import_target(str(block["_target_"]))
    except ConfigError as fault:
        return [f"{where}: {fault}"]
    parameters = inspect.signature(target).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return []
    faults = []
    settable = parameters.keys() - RUNTIME_ARGUMENTS
    for name in block.keys() - RESERVED_KEYS - settable:
        near = get_close_matches(name, settable, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"it takes {', '.join(sorted(settable))}"
        reason = "is filled in by the run" if name in RUNTIME_ARGUMENTS else f"is unknown to {block['_target_']}"
        faults.append(f"{where}.{name} {reason}; {hint}")
    for name in sorted(block.keys() & settable):
        if block[name] is None and (usual := parameters[name].default) is not None:
            named = "" if usual is inspect.Parameter.empty else f", such as {usual}"
            faults.append(f"{where}.{name}=null: it needs a value{named}")
    return faults


def make_factory(block: Mapping[str, Any], **given: Any) -> Callable[..., Any]:
    """The target of a block with its settings filled in, to be called with what only the run knows."""
    settings = {name: value for name, value in block.items() if name not in RESERVED_KEYS}
    return partial(import_target(str(block["_target_"])), **settings, **given)
