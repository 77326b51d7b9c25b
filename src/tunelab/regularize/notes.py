"""What may surprise in a run that can be done all the same: a method that weighs more, or less, than it looks."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from tunelab.regularize.linear import linear_layers
from tunelab.regularize.wanted import Wanted

HEAVY = 0.1  # nats of penalty that a line search would rather lower than the loss


def weight_notes(model: PreTrainedModel, wanted: Wanted, optimizer: Mapping[str, Any]) -> list[str]:
    """Notes on what depends on how large the weights are now.

    Args:
        model: Before its first step.
        wanted: What is asked for.
        optimizer: Its block.
    """
    notes = []
    if wanted.max_norm:
        longest = max(float(x.weight.detach().norm(dim=1 - x.units).max()) for x in linear_layers(model))
        if longest < wanted.max_norm:
            notes.append(
                f"regularization.max_norm={wanted.max_norm:g} changes nothing as long as no row is longer; the longest "
                f"is {longest:.3g} now"
            )
    if wanted.weight_decay and str(optimizer.get("_target_", "")).endswith("LBFGS"):
        learned = [p.detach() for p in model.parameters() if p.requires_grad and p.ndim >= 2]
        penalty = wanted.weight_decay / 2 * sum(float(weight.square().sum()) for weight in learned)
        if penalty > HEAVY:
            notes.append(
                f"regularization.weight_decay={wanted.weight_decay:g} adds {penalty:.3g} to the loss, and lbfgs "
                f"goes straight for the lowest sum, by shrinking weights; {wanted.weight_decay * HEAVY / penalty:.0e} "
                f"would add {HEAVY:g}"
            )
    return notes
