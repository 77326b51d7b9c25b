"""Memory of an optimizer before its first step, measured with the real class on small stand-ins of the parameters."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer
from transformers import PreTrainedModel

from tunelab.config import instantiate
from tunelab.config.schema import RunConfig
from tunelab.models.freezing import parameter_depths
from tunelab.models.mup import hidden_matrices
from tunelab.optim.factory import takes_one_kernel
from tunelab.optim.param_groups import build_param_groups, trainable_parameters
from tunelab.training.memory_profile import peak_bytes

STAND_IN_SHAPE = (67, 71, 7, 5, 3)  # sides of a stand-in: primes, so that the sides of its state tell which is which
SETTLING_STEPS = 8  # steps after which each is like the next: RAdam scales its steps from the sixth on only
ParameterKind = tuple[int, int, bool]  # group, number of dimensions, whether it is a matrix inside the layers


@dataclass(frozen=True)
class OptimizerMemory:
    """Memory that an optimizer takes on one device.

    Attributes:
        state_bytes: Kept from step to step, once every parameter has been stepped.
        step_bytes: Taken for itself within a step, at most.
        reevaluates_loss: Whether its step evaluates the loss again.
    """

    state_bytes: int
    step_bytes: int
    reevaluates_loss: bool


def measure_optimizer_memory(model: PreTrainedModel, settings: RunConfig, device: torch.device) -> OptimizerMemory:
    """The memory that the optimizer of a run will take for a model.

    Parameters of one group, number of dimensions and treatment share a stand-in, which takes real steps; each side of
    a state tensor that is a side of the stand-in grows with the parameter.  So factored and mixed optimizers
    (Adafactor; Muon beside AdamW) are counted as they are.
    """
    target = instantiate.import_target(settings.optimizer.target)
    groups, arguments = build_param_groups(model, settings), dict[str, Any]()
    hidden: set[int] = set()
    if "hidden" in signature(target).parameters:
        depths = parameter_depths(model)
        hidden = {id(weight) for weight in hidden_matrices(trainable_parameters(model), depths.by_name, depths.layers)}
    kinds: dict[ParameterKind, list[Parameter]] = {}
    for index, group in enumerate(groups):
        for weight in group["params"]:
            kinds.setdefault((index, weight.ndim, id(weight) in hidden), []).append(weight)
    stand_ins = {kind: make_stand_in(weights[0], device) for kind, weights in kinds.items()}
    stand_in_groups = [
        {**group, "params": [stand_in for (at, *_), stand_in in stand_ins.items() if at == index]}
        for index, group in enumerate(groups)
    ]
    if hidden:
        arguments["hidden"] = [stand_in for (*_, inside), stand_in in stand_ins.items() if inside]
    if takes_one_kernel(settings.optimizer, list(stand_ins.values())):
        arguments["fused"] = True
    optimizer = cast(Optimizer, instantiate.make_factory(settings.optimizer, **arguments)(stand_in_groups))
    reevaluates_loss = bool(getattr(optimizer, "needs_closure", False))
    for _ in range(SETTLING_STEPS + max(int(group.get("history_size", 0)) for group in optimizer.param_groups)):
        step_with_fresh_gradient(optimizer, list(stand_ins.values()))
    parameters = [weight for weights in kinds.values() for weight in weights]
    fill_gradients(list(stand_ins.values()))
    step_bytes = peak_bytes(lambda: take_optimizer_step(optimizer, list(stand_ins.values())), device)
    if reevaluates_loss or steps_all_at_once(optimizer, device):  # works on all parameters together
        scale = total_bytes(parameters) / total_bytes(stand_ins.values())
    else:
        scale = max(weight.nbytes for weight in parameters) / max(stand_in.nbytes for stand_in in stand_ins.values())
    if reevaluates_loss:  # and keeps them as one long vector
        state_bytes = sum(tensor.nbytes for state in optimizer.state.values() for tensor in iterate_tensors(state))
        return OptimizerMemory(round(state_bytes * scale), round(step_bytes * scale), reevaluates_loss)
    state_bytes = sum(
        scaled_bytes(tensor, stand_ins[kind], weight)
        for kind, weights in kinds.items()
        for tensor in iterate_tensors(optimizer.state[stand_ins[kind]])
        for weight in weights
    )
    return OptimizerMemory(state_bytes, round(step_bytes * scale), reevaluates_loss)


def steps_all_at_once(optimizer: Any, device: torch.device) -> bool:
    """Whether a step works on all parameters of a device together: PyTorch's own do on a GPU by default."""
    many, fused = (optimizer.defaults.get(name) for name in ("foreach", "fused"))
    if many is None:
        many = "foreach" in optimizer.defaults and device.type == "cuda" and not fused
    return bool(many)


def total_bytes(weights: Iterable[Parameter]) -> int:
    """Bytes of parameters."""
    return sum(weight.nbytes for weight in weights)


def make_stand_in(weight: Parameter, device: torch.device) -> Parameter:
    """A small parameter with as many dimensions, of the same kind."""
    return Parameter(torch.full(STAND_IN_SHAPE[: weight.ndim], 0.01, dtype=weight.dtype, device=device))


def step_with_fresh_gradient(optimizer: Any, weights: Sequence[Parameter]) -> None:
    """Take a step along a fresh gradient."""
    fill_gradients(weights)
    take_optimizer_step(optimizer, weights)


def fill_gradients(weights: Sequence[Parameter]) -> None:
    """Leave a gradient that differs from entry to entry."""
    noise = torch.Generator().manual_seed(0)
    for weight in weights:
        drawn = torch.rand(weight.shape, generator=noise) + weight.detach().cpu()
        weight.grad = drawn.to(weight.device, weight.dtype)


def take_optimizer_step(optimizer: Any, weights: Sequence[Parameter]) -> None:
    """Take a step along the gradient that is there."""
    if getattr(optimizer, "needs_closure", False):
        optimizer.step(lambda: quadratic_loss(weights))
    else:
        optimizer.step()


def quadratic_loss(weights: Sequence[Parameter]) -> Tensor:
    """A loss with curvature, and its gradient: half the sum of squares, each entry weighted 1 to 2."""
    loss = torch.zeros(())
    for weight in weights:
        curve = torch.linspace(1, 2, weight.numel(), device=weight.device).view_as(weight)
        weight.grad = (curve * weight.detach()).to(weight.dtype)
        loss = loss + float((curve * weight.detach().square()).sum()) / 2
    return loss


def iterate_tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of a state, in lists and tables too."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from (tensor for item in value.values() for tensor in iterate_tensors(item))
    elif isinstance(value, Iterable) and not isinstance(value, str):
        yield from (tensor for item in value for tensor in iterate_tensors(item))


def scaled_bytes(tensor: Tensor, stand_in: Parameter, weight: Parameter) -> int:
    """Bytes of a state tensor of a stand-in, for the real parameter."""
    side = dict(zip(stand_in.shape, weight.shape, strict=True))
    size = tensor.itemsize
    for length in tensor.shape:
        size *= side.get(length, length)
    return size
