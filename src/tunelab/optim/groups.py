"""Which parameters weight decay touches."""

from collections.abc import Iterable
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
