"""Turn a head that speaks standardised targets into one that speaks the user's units.  C targets, H hidden."""

from collections.abc import Sequence

import torch
from torch import nn

from tunelab.tasks.pooling import plain


def last_linear(model: nn.Module, width: int) -> nn.Linear | None:
    """The linear layer that gives the logits: the last one outside the backbone, `width` wide."""
    inner = plain(model)
    outside = [
        module
        for name, module in inner.named_modules()
        if isinstance(module, nn.Linear) and name.split(".")[0] != inner.base_model_prefix
    ]
    return outside[-1] if outside and outside[-1].out_features == width else None


def fold_scale(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> str | None:
    """Put `logits * std + mean` into the weights of a finished model, adapters merged, so that transformers alone
    gives values in the user's units.

    A head without bias (GPT-2, Llama and their kin) has no place for the mean, and transformers would not load one.
    Such a head stays as it is.  Either way the config says what is still to be done, as `target_mean` and
    `target_std`: 0 and 1 when folded.

    Args:
        model: Changed in place; do not train or score it further with the task.
        mean: What standardisation subtracted, C.
        std: What it divided by, C.

    Returns:
        A warning that tells how to read the logits, or None when they are in the user's units.
    """
    inner = plain(model)
    config = inner.config
    trivial = all(value == 0 for value in mean) and all(value == 1 for value in std)
    head = last_linear(inner, len(mean))
    if not trivial and (head is None or head.bias is None):
        config.target_mean, config.target_std = list(mean), list(std)
        return (
            f"the head of {type(inner).__name__} has no bias to hold the mean of the targets, so the exported model "
            f"gives standardised values: value = logit * {list(std)} + {list(mean)} (target_std and target_mean in "
            "config.json)"
        )
    if not trivial and head is not None:
        scale = torch.tensor(std, dtype=torch.float64, device=head.weight.device)
        shift = torch.tensor(mean, dtype=torch.float64, device=head.weight.device)
        with torch.no_grad():
            head.weight.copy_(head.weight.double() * scale[:, None])
            head.bias.copy_(head.bias.double() * scale + shift)
    config.target_mean, config.target_std = [0.0] * len(mean), [1.0] * len(std)
    return None
