"""muP: the learning rate that is best at one width stays best at another (Yang et al. 2022, Tensor Programs V).

The step of an Adam-like optimizer has the same size in every entry, whatever the gradient.  A unit of the next layer
sums over as many entries as the layer is wide, so its change grows with the width.  So matrices between hidden layers
learn at base width / width of the rate; embeddings, norm gains and biases, where nothing is summed over the width,
learn at the rate itself.

The output head sums over the width too.  Its part is a division of the logits by width / base width, in the
architecture: the head may share its matrix with the embedding, which must learn at the full rate.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from torch.nn import Parameter


def mup_lr_ratio(width: int, base_width: int) -> float:
    """Share of the rate at which hidden matrices learn."""
    return base_width / width


def mup_hidden_std(std: float, width: int, base_width: int) -> float:
    """First spread of hidden matrices, so that what they put out starts equally large at every width."""
    return float(std * (base_width / width) ** 0.5)


def mup_attention_scale(head_units: int, base_head: int) -> float:
    """Factor on attention scores: one over the units of a head, and what is usual where a head has `base_head`."""
    return float(base_head**0.5 / head_units)


def hidden_matrices(named: Mapping[str, Parameter], depth: Mapping[str, int], layers: int) -> list[Parameter]:
    """The matrices inside the layers: both their sides grow with the width."""
    return [weight for name, weight in named.items() if weight.ndim >= 2 and 1 <= depth[name] <= layers]


def mup_param_groups(
    groups: Iterable[Mapping[str, Any]], hidden: Iterable[Parameter], *, share: float, lr: float
) -> list[dict[str, Any]]:
    """Parameter groups in which hidden matrices learn at a share of the rate.

    Decoupled decay shrinks a weight by rate times decay in each step.  That product is kept: the decay is divided by
    the share.

    Args:
        groups: As `weight_decay_groups` or `layerwise_lr_groups` makes them.
        hidden: The parameters to scale.
        share: As `mup_lr_ratio` computes it; 1 leaves the groups as they are.
        lr: The rate of groups that name none.

    Returns:
        The groups without hidden matrices first, so that the first one has the rate of the run.
    """
    unscaled = [dict(group) for group in groups]
    if share == 1:
        return unscaled
    ours = {id(parameter) for parameter in hidden}
    full = [
        {**group, "params": [p for p in group["params"] if id(p) not in ours], "lr": group.get("lr", lr)}
        for group in unscaled
    ]
    less = [
        {
            **group,
            "params": [p for p in group["params"] if id(p) in ours],
            "lr": group.get("lr", lr) * share,
            "weight_decay": group["weight_decay"] / share,
        }
        for group in unscaled
    ]
    return [group for group in [*full, *less] if group["params"]]
