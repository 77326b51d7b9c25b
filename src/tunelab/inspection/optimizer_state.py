"""How many bytes an optimizer keeps, before it has taken a step: asked of the real class on tiny stand-ins."""

from collections.abc import Iterable, Iterator, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from transformers import PreTrainedModel

from tunelab import build
from tunelab.models.freeze import depths
from tunelab.optim.width_scaling import hidden_matrices
from tunelab.rates import learning, parameter_groups
from tunelab.settings import Run

EDGES = (67, 71, 73, 79, 83)  # sides of a stand-in: primes, so that the sides of its state tell which is which


def state_bytes(model: PreTrainedModel, settings: Run) -> int:
    """Bytes of the state once every parameter has been stepped.

    Parameters of one group, number of dimensions and treatment share a stand-in, which takes a real step; each side of
    a state tensor that is a side of the stand-in grows with the parameter.  So factored and mixed optimizers
    (Adafactor; Muon beside AdamW) are counted as they are.
    """
    target = build.find(str(settings.optimizer["_target_"]))
    groups, given = parameter_groups(model, settings), {}
    hidden: set[int] = set()
    if "hidden" in signature(target).parameters:
        high = depths(model)
        hidden = {id(weight) for weight in hidden_matrices(learning(model), high.of, high.layers)}
    kinds: dict[tuple[int, int, bool], list[Parameter]] = {}
    for place, group in enumerate(groups):
        for weight in group["params"]:
            kinds.setdefault((place, weight.ndim, id(weight) in hidden), []).append(weight)
    doubles = {kind: stand_in(weights[0]) for kind, weights in kinds.items()}
    small = [
        {**group, "params": [double for (at, *_), double in doubles.items() if at == place]}
        for place, group in enumerate(groups)
    ]
    if hidden:
        given["hidden"] = [double for (*_, inside), double in doubles.items() if inside]
    optimizer = build.make(settings.optimizer, **given)(small)
    step(optimizer, list(doubles.values()))
    if getattr(optimizer, "needs_closure", False):  # it keeps all parameters as one long vector
        share = sum(weight.numel() for weights in kinds.values() for weight in weights)
        share_of = sum(double.numel() for double in doubles.values())
        held = sum(tensor.numel() * tensor.itemsize for state in optimizer.state.values() for tensor in tensors(state))
        return round(held / share_of * share)
    return sum(
        grown(tensor, doubles[kind], weight)
        for kind, weights in kinds.items()
        for tensor in tensors(optimizer.state[doubles[kind]])
        for weight in weights
    )


def stand_in(weight: Parameter) -> Parameter:
    """A small parameter of the same kind; one too small for its sides stands for itself."""
    shape = EDGES[: weight.ndim]
    return Parameter(torch.full(shape, 0.01, dtype=weight.dtype, device=weight.device))


def step(optimizer: Any, weights: Sequence[Parameter]) -> None:
    """Take as many steps as the state needs to be full."""
    wanted = 1 + max(int(group.get("history_size", 0)) for group in optimizer.param_groups)
    noise = torch.Generator().manual_seed(0)
    for _ in range(wanted):
        for weight in weights:
            draw = torch.rand(weight.shape, generator=noise) + weight.detach().cpu()
            weight.grad = draw.to(weight.device, weight.dtype)
        if getattr(optimizer, "needs_closure", False):
            optimizer.step(lambda: descend(weights))
        else:
            optimizer.step()


def descend(weights: Sequence[Parameter]) -> Tensor:
    """A loss with curvature, and its gradient: half the sum of squares, each side by side weighted 1 to 2."""
    loss = torch.zeros(())
    for weight in weights:
        curve = torch.linspace(1, 2, weight.numel(), device=weight.device).view_as(weight)
        weight.grad = (curve * weight.detach()).to(weight.dtype)
        loss = loss + float((curve * weight.detach().square()).sum()) / 2
    return loss


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of a state, in lists and tables too."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from (tensor for item in value.values() for tensor in tensors(item))
    elif isinstance(value, Iterable) and not isinstance(value, str):
        yield from (tensor for item in value for tensor in tensors(item))


def grown(tensor: Tensor, double: Parameter, weight: Parameter) -> int:
    """Bytes of a state tensor of a stand-in, for the real parameter."""
    side = dict(zip(double.shape, weight.shape, strict=True))
    size = tensor.itemsize
    for length in tensor.shape:
        size *= side.get(length, length)
    return size
