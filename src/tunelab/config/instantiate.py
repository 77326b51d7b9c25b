"""Python objects from the `_target_` names of a config; nothing outside the allow-list is ever called.

A config may come from a run directory somebody else made, so free import paths would let it run anything.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from functools import partial
from importlib.util import find_spec

from hydra.utils import get_method

from tunelab.config import plugins
from tunelab.config.schema import RunConfig, TargetConfig
from tunelab.errors import ConfigError, first_line
from tunelab.language.translation import translate

ALLOWED_TARGETS = (
    "torch.optim.",
    "tunelab.optim.",
    "tunelab.tasks.",
    "tunelab.training.callbacks.",
    "lightning.pytorch.callbacks.",
    "bitsandbytes.optim.",
)
ALLOWED_IN_BLOCK: Mapping[str, tuple[str, ...]] = {  # by block: what may stand there and nowhere else
    "module": ("tunelab.training.module.",),
    "metrics": ("torchmetrics.classification.", "torchmetrics.regression.", "torchmetrics.text."),
}
OPTIONAL_PACKAGES = {"bitsandbytes"}  # packages that need not be there until a run trains with them
RUNTIME_ARGUMENTS: Mapping[str, Collection[str]] = {  # by block: arguments that the code passes, never the config
    "optimizer": ("params", "hidden"),
    "scheduler": ("step", "total"),
    "regularization": ("model", "progress"),
}


def allowed_prefixes(block: str = "") -> tuple[str, ...]:
    """The prefixes that the dotted name of a target may have in a block."""
    own = (f"{package}." for package in plugins.plugin_packages())
    return (*ALLOWED_TARGETS, *ALLOWED_IN_BLOCK.get(block, ()), *own)


def is_allowed_target(target: str, block: str = "") -> bool:
    """Whether a target lies under an allowed name and is written as plain dotted words."""
    plain_words = all(part.isidentifier() and not part.startswith("_") for part in target.split("."))
    return plain_words and target.startswith(allowed_prefixes(block))


def import_target(target: str, block: str = "") -> Callable[..., object]:
    """The function or class behind an allowed dotted name.

    Args:
        target: The name.
        block: The block it stands in; some may hold what others may not.

    Raises:
        ConfigError: If the name is not allowed or names nothing that can be called.
    """
    if not is_allowed_target(target, block):
        home = target.partition(".")[0]
        raise ConfigError(
            translate(
                "_target_ '{target}' is not allowed; targets must lie under {names}. A package of "
                "your own is named on the command line, plugins=[{home}], or in the environment, "
                "{variable}={home}",
                target=target,
                names=", ".join(allowed_prefixes(block)),
                home=home,
                variable=plugins.VARIABLE,
            )
        )
    if package := missing_package(target):
        raise ConfigError(
            translate(
                "_target_ '{target}' needs the package {package}, which is not installed; pip install {package}",
                target=target,
                package=package,
            )
        )
    try:
        imported: Callable[..., object] = get_method(target)
    except Exception as fault:
        raise ConfigError(
            translate(
                "_target_ '{target}' does not exist ({reason})",
                target=target,
                reason=first_line(fault.__cause__ or fault),
            )
        ) from fault
    home = getattr(imported, "__module__", "") or ""
    if not f"{home}.".startswith(allowed_prefixes(block)):  # torch.optim.adamw.torch.load only passes through
        raise ConfigError(
            translate(
                "_target_ '{target}' only borrows its name: it is {home}.{imported}",
                target=target,
                home=home,
                imported=getattr(imported, "__name__", imported),
            )
        )
    return imported


def missing_package(target: str) -> str | None:
    """The optional package that a target needs and that is not installed."""
    home = target.partition(".")[0]
    return home if home in OPTIONAL_PACKAGES and find_spec(home) is None else None


def target_faults(config: TargetConfig, where: str, runtime: Collection[str] | None = None) -> list[str]:
    """Faults of a target: unknown, or with unknown, misspelt or empty arguments.

    A target in a package that is not installed is none: a trained run is read where its optimizer is not needed.

    Args:
        config: The target and its arguments.
        where: The block it stands in and its name there, for the messages.
        runtime: The arguments that the code passes; None takes those of the block.
    """
    if missing_package(config.target):
        return []
    block = where.partition(".")[0]
    filled_in = RUNTIME_ARGUMENTS.get(block, ()) if runtime is None else runtime
    try:
        target = import_target(config.target, block)
    except ConfigError as fault:
        return [f"{where}: {fault}"]
    parameters = inspect.signature(target).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return []
    faults = []
    settable = parameters.keys() - set(filled_in)
    for name in config.arguments.keys() - settable:
        near = get_close_matches(name, settable, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"it takes {', '.join(sorted(settable)) or 'none'}"
        reason = (
            translate("is filled in by the run")
            if name in filled_in
            else translate("is unknown to {target}", target=config.target)
        )
        faults.append(translate("{path} {reason}; {advice}", path=f"{where}.{name}", reason=reason, advice=hint))
    for name in sorted(config.arguments.keys() & settable):
        if config.arguments[name] is None and (usual := parameters[name].default) is not None:
            named = "" if usual is inspect.Parameter.empty else translate(", such as {usual}", usual=usual)
            faults.append(
                translate("{where}.{name}=null: it needs a value{named}", where=where, name=name, named=named)
            )
    return faults


def own_faults(config: TargetConfig, run: RunConfig) -> list[str]:
    """The faults that an optimizer or a schedule finds itself in the settings of a run, by its `config_faults`."""
    if missing_package(config.target):
        return []
    check: Callable[[RunConfig], list[str]] | None = getattr(import_target(config.target), "config_faults", None)
    return check(run) if check else []


def optimizer_argument_faults(config: TargetConfig) -> list[str]:
    """Faults that the class of an optimizer finds in its arguments when it is called with them.

    Args:
        config: One in which `target_faults` finds nothing.
    """
    import torch  # reading a trained run gets by without
    from torch.nn import Parameter

    if missing_package(config.target):
        return []
    matrix, vector = Parameter(torch.zeros(2, 2)), Parameter(torch.zeros(2))
    takes_hidden = "hidden" in inspect.signature(import_target(config.target)).parameters
    make = make_factory(config, **({"hidden": [matrix]} if takes_hidden else {}))
    try:
        make([{"params": [one], "weight_decay": 0.0} for one in (matrix, vector)])
    except (TypeError, ValueError) as fault:
        return [
            translate("optimizer: {fault}; see the comments in its file under conf/optimizer/", fault=first_line(fault))
        ]
    return []


def make_factory(config: TargetConfig, **runtime: object) -> Callable[..., object]:
    """The target with its arguments filled in, to be called with what only the run knows."""
    return partial(import_target(config.target), **config.arguments, **runtime)
