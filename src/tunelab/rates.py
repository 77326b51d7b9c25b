"""Who learns how fast, and from when on: parameter groups and gradual unfreezing of a run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from tunelab.errors import ConfigError
from tunelab.models.freeze import Depths, depths, nothing_like_it, unmet
from tunelab.optim.groups import rate_groups
from tunelab.optim.unfreeze import first_steps
from tunelab.optim.width_scaling import hidden_matrices, rate_share, scaled_groups
from tunelab.regularize.wanted import Wanted
from tunelab.settings import Run

Held = Callable[[int], Sequence[nn.Parameter]]  # optimizer step to the parameters that do not learn in it


def learning(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """The parameters that learn at some time of the run, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def parameter_groups(model: PreTrainedModel, settings: Run) -> list[dict[str, Any]]:
    """What the optimizer is given.

    Raises:
        ConfigError: If rates are asked for by layer or for the head, and there is none.
    """
    high, named, wanted = depths(model), learning(model), settings.adapter
    faults = []
    if wanted["layer_decay"] != 1 and not high.layers:
        faults.append(f"adapter.layer_decay: no stack of layers was found in this {model.config.model_type} model")
    if wanted["head_lr"] is not None and not any(high.of[name] == high.head for name in named):
        faults.append(
            f"adapter.head_lr={wanted['head_lr']}: no head of its own is trained here (a language model's may be tied "
            "to its embeddings); leave it at null"
        )
    if faults:
        raise ConfigError.listing(faults)
    groups = rate_groups(
        named,
        Wanted.of(settings.regularization).weight_decay,
        lr=settings.lr,
        depth=high.of,
        layers=high.layers,
        layer_decay=float(wanted["layer_decay"]),
        head_lr=None if wanted["head_lr"] is None else float(wanted["head_lr"]),
    )
    if not settings.model.get("mup"):
        return groups
    share = rate_share(int(settings.model["width"]), int(settings.model["base_width"]))
    return scaled_groups(groups, hidden_matrices(named, high.of, high.layers), share=share, lr=settings.lr)


def starts(model: PreTrainedModel, settings: Run, total: int) -> dict[str, int]:
    """The first step of each parameter that learns.

    Raises:
        ConfigError: If a name of `adapter.unfreeze_at` meets nothing, or nothing would learn from the first step on.
    """
    high, named, at = depths(model), learning(model), dict(settings.adapter["unfreeze_at"])
    if lost := unmet(list(named), list(at)):
        raise ConfigError(f"adapter.unfreeze_at={lost}: {nothing_like_it(list(named))}")
    found = first_steps(
        {name: high.of[name] for name in named},
        layers=high.layers,
        every=settings.adapter["unfreeze_every"],
        at=at,
        total=total,
    )
    if min(found.values()) > 0:
        raise ConfigError(f"adapter.unfreeze_at={at} leaves nothing to train in the first step; name fewer parts")
    return found


def held_back(model: PreTrainedModel, first: Mapping[str, int]) -> Held:
    """The parameters that a step must leave alone."""
    named, until = learning(model), max(first.values())

    def held(step: int) -> Sequence[nn.Parameter]:
        return () if step >= until else [named[name] for name, start in first.items() if start > step]

    return held


def told(model: PreTrainedModel, settings: Run, total: int) -> dict[str, str]:
    """Rates and first steps by depth, in words; empty where all parameters share them."""
    high, lines = depths(model), {}
    where = {id(parameter): high.of[name] for name, parameter in learning(model).items()}
    groups = parameter_groups(model, settings)
    if any("lr" in group for group in groups):
        rates = {where[id(p)]: group["lr"] for group in groups for p in group["params"]}
        lines["rates"] = by_depth(high, rates, lambda rate: f"{rate:.3g}")
    first = starts(model, settings, total)
    if max(first.values()):
        named = {high.of[name]: step for name, step in sorted(first.items(), key=lambda entry: entry[1])}
        lines["learn from"] = by_depth(high, named, lambda step: f"step {step + 1:.0f}")
    return lines


def by_depth(high: Depths, values: Mapping[int, float], word: Callable[[float], str]) -> str:
    """A line that names each depth with its value, from the top down."""
    return ", ".join(f"{high.name(depth)} {word(values[depth])}" for depth in sorted(values, reverse=True))
