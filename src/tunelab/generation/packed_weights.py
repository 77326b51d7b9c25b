"""Weights laid out for products with few rows: oneDNN packs a matrix anew at each call unless it is given it packed."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

MAX_PACKED_BYTES = 256 * 2**20  # of copies: what a small model needs; of a large one its first layers are packed
FEW_ROWS = 64  # for which weights are packed; the layout is as good for fewer, and for many


@contextmanager
def packed_weights(model: nn.Module) -> Iterator[None]:
    """Within this block linear layers multiply by packed copies of their weights, in 32 bits on a processor.

    Sums are rounded otherwise than without, as they are in a batch of another size.  Weights must not change meanwhile.
    """
    packed: list[nn.Module] = []
    try:
        for layer, weight in packable_layers(model):
            bias: Tensor | None = layer.bias
            copy = torch.ops.mkldnn._reorder_linear_weight(weight, FEW_ROWS)
            layer.forward = partial(multiply_packed, copy, bias)  # type: ignore[method-assign]
            packed.append(layer)
        yield
    finally:
        for changed in packed:
            del changed.forward


def multiply_packed(weight: Tensor, bias: Tensor | None, states: Tensor) -> Tensor:
    """The product of states (..., in) and a packed weight, plus the bias."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
    return product


def packable_layers(model: nn.Module) -> list[tuple[nn.Linear | Conv1D, Tensor]]:
    """Linear layers whose weights can be packed, and these as (out, in), as many as `MAX_PACKED_BYTES` allow.

    Nothing where PyTorch lacks the kernels, or where products are not in 32 bits.
    """
    packable, left = list[tuple[nn.Linear | Conv1D, Tensor]](), MAX_PACKED_BYTES
    for layer in model.modules() if can_pack() else ():
        if not isinstance(layer, nn.Linear | Conv1D) or type(layer) not in (nn.Linear, Conv1D):
            continue
        weight = layer.weight.detach()
        plain = type(layer.weight) is nn.Parameter and weight.device.type == "cpu" and weight.dtype == torch.float32
        if plain and "forward" not in vars(layer) and weight.nbytes <= left:
            packable.append((layer, weight if isinstance(layer, nn.Linear) else weight.T))
            left -= weight.nbytes
    return packable


def can_pack() -> bool:
    """Whether products are in 32 bits, and PyTorch has the kernels: they are its compiler's own, which may move."""
    if torch.is_autocast_enabled("cpu") or not torch.backends.mkldnn.is_available():
        return False
    return all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
