"""Which parameters weight decay touches, and at which rate each of them learns."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch.nn import Parameter


def decay_groups(parameters: Iterable[Parameter], weight_decay: float) -> list[dict[str, Any]]:
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


def rate_factor(depth: int, layers: int, layer_decay: float) -> float:
    """Share of the peak rate at a depth: 1 above the layers, `layer_decay` at the top one, its square below, ...

    Howard and Ruder 2018 (ULMFiT) call this discriminative fine-tuning; ELECTRA (Clark et al. 2020) does the same.

    Args:
        depth: 0 for embeddings, 1 to `layers` for the layers, more above them.
        layers: How many there are.
        layer_decay: Between 0 and 1; 1 gives every depth the same rate.
    """
    return float(layer_decay ** max(0, layers + 1 - depth))


def rate_groups(
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
        weight_decay: Of matrices, as in `decay_groups`.
        lr: Peak rate of all that stands above the layers.
        depth: Depth of each name; `layers` + 2 and above is the head.
        layers: How many layers there are.
        layer_decay: What each layer's rate is multiplied by, from the top down.
        head_lr: The head's own peak rate; None takes `lr`.

    Returns:
        Groups from the top of the body down, the head last, so that the first one tells the body's rate.  They name
        a rate only where the rates differ.
    """
    rates = {
        name: head_lr if head_lr is not None and depth[name] >= layers + 2
        else lr * rate_factor(depth[name], layers, layer_decay)
        for name, parameter in named.items()
        if parameter.requires_grad
    }  # fmt: skip
    if len(set(rates.values())) <= 1 and set(rates.values()) <= {lr}:
        return decay_groups(named.values(), weight_decay)
    by_rate: dict[tuple[bool, float], list[Parameter]] = {}
    for name in sorted(rates, key=lambda name: (depth[name] >= layers + 2, -depth[name])):
        own = head_lr is not None and depth[name] >= layers + 2
        by_rate.setdefault((own, rates[name]), []).append(named[name])
    return [
        {**group, "lr": rate}
        for (_, rate), parameters in by_rate.items()
        for group in decay_groups(parameters, weight_decay)
    ]
