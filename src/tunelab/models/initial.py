"""The first weights of a network of your own: how far the matrices inside its layers are spread.

Embeddings and the output head are drawn alike in every scheme, by the architecture's own rule, and so are norms.
"""

from collections.abc import Mapping
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunelab.models.freeze import depths
from tunelab.models.scratch import first_spread
from tunelab.optim.width_scaling import hidden_matrices, hidden_std

WRITES = ("o_proj.weight", "down_proj.weight")  # their products are added to the residual stream


@torch.no_grad()
def draw_layers(model: PreTrainedModel, settings: Mapping[str, Any]) -> None:
    """Draw the matrices of all layers by `model.init`, from torch's generator, so seed it before.

    `normal`: one spread for all.  `xavier`: variance 2 / (inputs + outputs) (Glorot and Bengio 2010).  `kaiming`:
    variance 2 / inputs (He et al. 2015).  `depth_scaled`: as `normal`, and what adds to the residual stream is divided
    by the root of twice the depth, the number of additions (Radford et al. 2019, GPT-2).

    Args:
        model: As transformers drew it; changed in place.
        settings: The `model` block of `model=scratch`.
    """
    scheme = settings.get("init", "normal")
    if scheme == "normal" and not settings.get("mup"):
        return  # the architecture's own rule does just that
    high, named = depths(model), dict(model.named_parameters())
    names = {id(weight): name for name, weight in named.items()}
    for weight in hidden_matrices(named, high.of, high.layers):
        if scheme == "xavier":
            nn.init.xavier_normal_(weight)
        elif scheme == "kaiming":
            nn.init.kaiming_normal_(weight, nonlinearity="relu")
        else:
            adds = scheme == "depth_scaled" and names[id(weight)].endswith(WRITES)
            draw(weight, plain_spread(settings) / (sqrt(2 * high.layers) if adds else 1))


def plain_spread(settings: Mapping[str, Any]) -> float:
    """Spread of hidden matrices where neither inputs nor outputs are counted."""
    std = first_spread(settings)
    return hidden_std(std, settings["width"], settings["base_width"]) if settings.get("mup") else std


def draw(weight: Tensor, std: float) -> None:
    """Fill a matrix with normal numbers around 0."""
    nn.init.normal_(weight, 0.0, std)
