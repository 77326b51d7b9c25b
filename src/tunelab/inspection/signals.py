"""How large signals are on their way up, and gradients on their way down, layer by layer, at initialisation."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunelab.models.freeze import layer_stack


@dataclass
class Signals:
    """Root mean squares along the depth.

    Attributes:
        names: From the embeddings up.
        forward: Of each part's output.
        backward: Of the loss's gradient with respect to that output; nan where none passes, below frozen weights.
        added: Of what each layer changes, as a share of what enters it; nan for the embeddings.
    """

    names: list[str] = field(default_factory=list)
    forward: list[float] = field(default_factory=list)
    backward: list[float] = field(default_factory=list)
    added: list[float] = field(default_factory=list)


def measure(model: PreTrainedModel, loss: Callable[[], Tensor]) -> Signals:
    """Run one micro-batch forward and backward, and watch the layers.

    Args:
        model: Its gradients are cleared afterwards, its weights stay.
        loss: Runs the forward pass; the mean loss.
    """
    stack, count = layer_stack(model)
    watched = [model.get_submodule(f"{stack}.{place}") for place in range(count)]
    found = Signals(names=["embeddings", *(f"layer {place + 1}" for place in range(count))])
    found.forward, found.backward, found.added = ([float("nan")] * (count + 1) for _ in range(3))
    handles = [
        layer.register_forward_hook(partial(look, found, place), with_kwargs=True)
        for place, layer in enumerate(watched, start=1)
    ]
    try:
        loss().backward()
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad(set_to_none=True)
    return found


def look(found: Signals, place: int, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
    """Note the size of what enters and leaves a layer, and of the gradients there; later passes overwrite earlier."""
    entered = args[0] if args else kwargs["hidden_states"]
    left = output[0] if isinstance(output, tuple) else output
    if place == 1:
        found.forward[0] = size(entered)
        note(found, 0, entered)
    found.forward[place] = size(left)
    found.added[place] = size(left.detach().float() - entered.detach().float()) / max(found.forward[place - 1], 1e-300)
    note(found, place, left)


def note(found: Signals, place: int, tensor: Tensor) -> None:
    """Have the size of a tensor's gradient written down when it comes."""

    def write(gradient: Tensor) -> None:
        found.backward[place] = size(gradient)

    if tensor.requires_grad:
        tensor.register_hook(write)


def size(tensor: Tensor) -> float:
    """Root mean square, computed in double precision: squares of small gradients are 0 in single."""
    return float(torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64) / max(1, tensor.numel()) ** 0.5)
