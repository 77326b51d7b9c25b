"""The only door from names in a config to Python objects: nothing outside the allow-list is ever called.

A config may come from a run folder somebody else made, so free import paths would let it run anything.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

from hydra.utils import get_method

from tunelab.errors import ConfigError

ALLOWED = (
    "torch.optim.",
    "tunelab.optim.",
    "tunelab.callbacks.",
    "lightning.pytorch.callbacks.",
    "bitsandbytes.optim.",
)
OPTIONAL = {"bitsandbytes"}  # packages that need not be there until a run trains with them
OURS = {"_target_"}  # keys of a block that are not arguments
GIVEN = {"params", "step", "total", "hidden"}  # arguments that the code hands over, never the config


def allowed(target: str) -> bool:
    """Whether a target lies under an allowed name and is written as plain dotted words."""
    return target.startswith(ALLOWED) and all(
        part.isidentifier() and not part.startswith("_") for part in target.split(".")
    )


def find(target: str) -> Callable[..., Any]:
    """The function or class behind an allowed dotted name.

    Raises:
        ConfigError: If the name is not allowed or names nothing that can be called.
    """
    if not allowed(target):
        raise ConfigError(f"_target_ '{target}' is not allowed; targets must lie under {', '.join(ALLOWED)}")
    if package := lacking(target):
        raise ConfigError(
            f"_target_ '{target}' needs the package {package}, which is not installed; pip install {package}"
        )
    try:
        found: Callable[..., Any] = get_method(target)
    except Exception as fault:
        raise ConfigError(f"_target_ '{target}' does not exist ({first_line(fault)})") from fault
    home = getattr(found, "__module__", "") or ""
    if not f"{home}.".startswith(ALLOWED):  # a name such as torch.optim.adamw.torch.load only passes through
        raise ConfigError(
            f"_target_ '{target}' only borrows its name: it is {home}.{getattr(found, '__name__', found)}"
        )
    return found


def lacking(target: str) -> str | None:
    """The optional package that a target needs and that is not installed."""
    home = target.partition(".")[0]
    return home if home in OPTIONAL and find_spec(home) is None else None


def faults_of(block: Mapping[str, Any], where: str) -> list[str]:
    """What is wrong with a block that names a `_target_`: unknown target, unknown, misspelt or empty arguments.

    A target in a package that is not installed is none: a trained run is read where its optimizer is not needed.
    """
    from difflib import get_close_matches

    if lacking(str(block["_target_"])):
        return []
    try:
        target = find(str(block["_target_"]))
    except ConfigError as fault:
        return [f"{where}: {fault}"]
    parameters = inspect.signature(target).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return []
    faults = []
    settable = parameters.keys() - GIVEN
    for name in block.keys() - OURS - settable:
        near = get_close_matches(name, settable, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"it takes {', '.join(sorted(settable))}"
        reason = "is filled in by the run" if name in GIVEN else f"is unknown to {block['_target_']}"
        faults.append(f"{where}.{name} {reason}; {hint}")
    for name in sorted(block.keys() & settable):
        if block[name] is None and (usual := parameters[name].default) is not None:
            named = "" if usual is inspect.Parameter.empty else f", such as {usual}"
            faults.append(f"{where}.{name}=null: it needs a value{named}")
    return faults


def make(block: Mapping[str, Any], **given: Any) -> Callable[..., Any]:
    """The target of a block with its settings filled in, to be called with what only the run knows."""
    settings = {name: value for name, value in block.items() if name not in OURS}
    return partial(find(str(block["_target_"])), **settings, **given)


def first_line(fault: BaseException) -> str:
    """The first line of an error's text."""
    return (str(fault).strip() or type(fault).__name__).splitlines()[0]
