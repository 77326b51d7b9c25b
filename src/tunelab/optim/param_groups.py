"""Parameter groups of the optimizer: weight decay, learning rate by depth, gradual unfreezing.

A parameter that is not trained yet gets no gradient, so neither the step nor decay nor momentum moves it, and the
optimizer keeps no state of it.  Which ones are is a function of the step alone, so a resumed run and several devices
agree on it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.nn import Parameter
from transformers import PreTrainedModel

from tunelab.config.schema import RunConfig, ScratchModelConfig
from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.models.freezing import ParameterDepths, no_match_message, parameter_depths, unmatched_patterns
from tunelab.models.mup import hidden_matrices, mup_lr_ratio, mup_param_groups
from tunelab.optim.schedules import warmup_steps

FrozenAtStep = Callable[[int], Sequence[nn.Parameter]]  # optimizer step to the parameters that do not learn in it


def trainable_parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """The parameters that learn at some time of the run, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def build_param_groups(model: PreTrainedModel, settings: RunConfig) -> list[dict[str, Any]]:
    """The parameter groups of the optimizer, with their rates and weight decay.

    Raises:
        ConfigError: If rates are set by layer or for the head, and there is none.
    """
    depths, named, adapter = parameter_depths(model), trainable_parameters(model), settings.adapter
    faults = []
    if adapter.layer_decay != 1 and not depths.layers:
        faults.append(
            translate(
                "adapter.layer_decay: no stack of layers was found in this {model_type} model",
                model_type=model.config.model_type,
            )
        )
    if adapter.head_lr is not None and not any(depths.by_name[name] == depths.head_depth for name in named):
        faults.append(
            translate(
                "adapter.head_lr={head_lr}: no head of its own is trained here (a language model's "
                "may be tied to its embeddings); leave it at null",
                head_lr=adapter.head_lr,
            )
        )
    if faults:
        raise ConfigError.listing(faults)
    groups = layerwise_lr_groups(
        named,
        settings.regularization.weight_decay,
        lr=settings.lr,
        depth=depths.by_name,
        layers=depths.layers,
        layer_decay=adapter.layer_decay,
        head_lr=adapter.head_lr,
    )
    size = settings.model
    if not isinstance(size, ScratchModelConfig) or not size.mup:
        return groups
    share = mup_lr_ratio(size.width, size.base_width)
    return mup_param_groups(groups, hidden_matrices(named, depths.by_name, depths.layers), share=share, lr=settings.lr)


def unfreezing_steps(model: PreTrainedModel, settings: RunConfig, total: int) -> dict[str, int]:
    """The first step of each parameter that learns.

    Raises:
        ConfigError: If a name of `adapter.unfreeze_at` meets nothing, or nothing would learn from the first step on.
    """
    depths, named, at = parameter_depths(model), trainable_parameters(model), dict(settings.adapter.unfreeze_at)
    if lost := unmatched_patterns(list(named), list(at)):
        raise ConfigError(
            translate("adapter.unfreeze_at={lost}: {named}", lost=lost, named=no_match_message(list(named)))
        )
    first_steps = gradual_unfreezing_steps(
        {name: depths.by_name[name] for name in named},
        layers=depths.layers,
        every=settings.adapter.unfreeze_every,
        at=at,
        total=total,
    )
    if min(first_steps.values()) > 0:
        raise ConfigError(
            translate("adapter.unfreeze_at={at} leaves nothing to train in the first step; name fewer parts", at=at)
        )
    return first_steps


def frozen_at_step(model: PreTrainedModel, first: Mapping[str, int]) -> FrozenAtStep:
    """The parameters that a step must leave alone."""
    named, until = trainable_parameters(model), max(first.values())

    def frozen_parameters(step: int) -> Sequence[nn.Parameter]:
        return () if step >= until else [named[name] for name, start in first.items() if start > step]

    return frozen_parameters


def describe_learning_rates(model: PreTrainedModel, settings: RunConfig, total: int) -> dict[str, str]:
    """Rates and first steps by depth, in words; empty where all parameters share them."""
    depths, lines = parameter_depths(model), {}
    where = {id(parameter): depths.by_name[name] for name, parameter in trainable_parameters(model).items()}
    groups = build_param_groups(model, settings)
    if any("lr" in group for group in groups):
        rates = {where[id(p)]: group["lr"] for group in groups for p in group["params"]}
        lines["rates"] = describe_by_depth(depths, rates, lambda rate: f"{rate:.3g}")
    first = unfreezing_steps(model, settings, total)
    if max(first.values()):
        named = {depths.by_name[name]: step for name, step in sorted(first.items(), key=lambda entry: entry[1])}
        lines[translate("learn from")] = describe_by_depth(
            depths, named, lambda step: translate("step {step:.0f}", step=step + 1)
        )
    return lines


def describe_by_depth(depths: ParameterDepths, values: Mapping[int, float], word: Callable[[float], str]) -> str:
    """A line that names each depth with its value, from the top down."""
    return ", ".join(f"{depths.name(depth)} {word(values[depth])}" for depth in sorted(values, reverse=True))


def weight_decay_groups(parameters: Iterable[Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Split trainable parameters into a decayed and an undecayed group.

    Matrices decay, vectors do not: shrinking a bias or a norm gain changes the function without simplifying it.
    The test is the number of dimensions, never the name: a list such as ["bias", "LayerNorm.weight"] matches
    BERT and misses GPT-2's `ln_1.weight` without a word.

    Args:
        parameters: Any iterable of parameters; frozen ones are left out.
        weight_decay: Decay of the matrices, per step, before the learning rate.

    Returns:
        Optimizer parameter groups, matrices first; a group without parameters is left out.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def layer_lr_factor(depth: int, layers: int, layer_decay: float) -> float:
    """Share of the peak rate at a depth: 1 above the layers, `layer_decay` at the top one, its square below, ...

    Howard and Ruder 2018 (ULMFiT) call this discriminative fine-tuning; ELECTRA (Clark et al. 2020) does the same.

    Args:
        depth: 0 for embeddings, 1 to `layers` for the layers, more above them.
        layers: How many there are.
        layer_decay: Between 0 and 1; 1 gives every depth the same rate.
    """
    return float(layer_decay ** max(0, layers + 1 - depth))


def layerwise_lr_groups(
    named: Mapping[str, Parameter],
    weight_decay: float,
    *,
    lr: float,
    depth: Mapping[str, int],
    layers: int,
    layer_decay: float = 1.0,
    head_lr: float | None = None,
) -> list[dict[str, Any]]:
    """Parameter groups with a peak rate for each depth.

    Args:
        named: Parameters by name; frozen ones are left out.
        weight_decay: Of matrices, as in `weight_decay_groups`.
        lr: Peak rate of all that stands above the layers.
        depth: Depth of each name; `layers` + 2 and above is the head.
        layers: How many layers there are.
        layer_decay: What each layer's rate is multiplied by, from the top down.
        head_lr: The head's own peak rate; None takes `lr`.

    Returns:
        Groups from the top of the body down, the head last, so that the first one has the body's rate.  They name
        a rate only where the rates differ.
    """
    rates = {
        name: head_lr if head_lr is not None and depth[name] >= layers + 2
        else lr * layer_lr_factor(depth[name], layers, layer_decay)
        for name, parameter in named.items()
        if parameter.requires_grad
    }  # fmt: skip
    if len(set(rates.values())) <= 1 and set(rates.values()) <= {lr}:
        return weight_decay_groups(named.values(), weight_decay)
    by_rate: dict[tuple[bool, float], list[Parameter]] = {}
    for name in sorted(rates, key=lambda name: (depth[name] >= layers + 2, -depth[name])):
        own = head_lr is not None and depth[name] >= layers + 2
        by_rate.setdefault((own, rates[name]), []).append(named[name])
    return [
        {**group, "lr": rate}
        for (_, rate), parameters in by_rate.items()
        for group in weight_decay_groups(parameters, weight_decay)
    ]


def gradual_unfreezing_steps(
    depth: Mapping[str, int], *, layers: int, every: float | None, at: Mapping[str, float], total: int
) -> dict[str, int]:
    """The step, counted from 0, at which each parameter starts to learn.

    What stands above the layers starts at once, then one layer more joins every so many steps, from the top down
    (Howard and Ruder 2018, ULMFiT).  Where nothing above the layers learns, the top layer that does starts at once.

    Args:
        depth: Depth of each parameter that learns at some time.
        layers: How many layers there are; greater depths stand above them.
        every: Steps from one layer to the next, a share of the run below 1; None opens all at once.
        at: Part of a name to the step (a share of the run below 1) from which parameters with it learn.
        total: Steps of the run.
    """
    order = sorted({min(level, layers + 1) for level in depth.values()}, reverse=True)
    gap = 0 if every is None else max(1, warmup_steps(every, total))
    steps = {name: gap * order.index(min(level, layers + 1)) for name, level in depth.items()}
    for part, start in at.items():
        steps |= {name: warmup_steps(start, total) for name in steps if part in name}
    return steps
