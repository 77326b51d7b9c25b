"""Stochastic depth: whole layers are skipped at random (Huang et al. 2016, Deep Networks with Stochastic Depth)."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunelab.data.examples import Micro
from tunelab.models.freeze import layer_stack
from tunelab.regularize.per_sequence import per_sequence


def layers_of(model: PreTrainedModel) -> list[nn.Module]:
    """The layers of a model, lowest first; none where they cannot be told apart."""
    name, _ = layer_stack(model)
    return list(model.get_submodule(name).children()) if name else []


@contextmanager
def skipped_layers(model: PreTrainedModel, last: float, micro: Micro) -> Iterator[None]:
    """Within this block layer l of L is skipped with probability last x l / L, for each sequence by itself.

    A layer gives x + keep / (1 - probability) (f(x) - x), so that on average it gives f(x), and evaluation needs no
    other scale.  Every layer is computed; nothing is saved by skipping.

    Args:
        model: In training mode; in evaluation mode no layer is skipped.
        last: Probability for the last layer.
        micro: What is about to pass through.
    """
    layers = layers_of(model)
    with ExitStack() as stack:
        for height, layer in enumerate(layers, 1):
            hook = _skip(last * height / len(layers), micro)
            stack.callback(layer.register_forward_hook(hook, with_kwargs=True).remove)
        yield


def _skip(probability: float, micro: Micro) -> Any:
    """A hook that takes back what a layer did to some sequences."""

    def skip(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        if not module.training:
            return None
        before: Tensor = args[0] if args else named["hidden_states"]
        after: Tensor = output[0] if isinstance(output, tuple) else output
        keep = torch.full(micro.lengths.shape, 1 - probability, device=after.device)
        scale = per_sequence(keep.bernoulli() / (1 - probability), micro).to(after.dtype)
        mixed = before + scale * (after - before)
        return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

    return skip
