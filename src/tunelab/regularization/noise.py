"""Noise in the forward pass: NEFTune, stochastic depth, Mixout.

* NEFTune: noise on the input embeddings (Jain et al. 2023, Noisy Embeddings Improve Instruction Finetuning).
* Stochastic depth: whole layers are skipped (Huang et al. 2016, Deep Networks with Stochastic Depth).
* Mixout: weights are swapped with the pretrained ones (Lee, Cho and Kang 2020, Mixout).  Where dropout falls back to
  zero, this falls back to the model that training came from.

Dropout is a matter of the architecture: `models/architecture.py`.

Shape letters: S sequences, B rows (B = S, or 1 where documents lie end to end), T tokens, H hidden.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel

from tunelab.data.examples import MicroBatch
from tunelab.models.freezing import layer_stack
from tunelab.regularization.penalties import LinearWeight


def broadcast_per_sequence(values: Tensor, micro: MicroBatch) -> Tensor:
    """Values (S,) in a shape that multiplies hidden states (B, T, H): (S, 1, 1), or (1, T, 1) for packed rows."""
    if micro.document_starts is None:
        return values[:, None, None]
    return values.repeat_interleave(micro.lengths)[None, :, None]


@contextmanager
def noisy_embeddings(model: PreTrainedModel, alpha: float, micro: MicroBatch) -> Iterator[None]:
    """Within this block each embedding gets uniform noise of up to alpha / sqrt(L x H), L being its sequence's length.

    Args:
        model: In training mode; in evaluation mode nothing is added.
        alpha: Size of the noise; the paper takes 5 to 15.
        micro: What is about to pass through.
    """

    def add(module: nn.Module, args: tuple[Tensor, ...], embedded: Tensor) -> Tensor | None:
        if not module.training:
            return None
        size = alpha / (micro.lengths * embedded.shape[-1]).sqrt()
        return embedded + torch.empty_like(embedded).uniform_(-1, 1) * broadcast_per_sequence(size, micro).to(
            embedded.dtype
        )

    handle = model.get_input_embeddings().register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def stacked_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The layers of a model, lowest first; none without a stack of layers."""
    name, _ = layer_stack(model)
    return list(model.get_submodule(name).children()) if name else []


@contextmanager
def skipped_layers(model: PreTrainedModel, last: float, micro: MicroBatch) -> Iterator[None]:
    """Within this block layer l of L is skipped with probability last x l / L, for each sequence by itself.

    A layer gives x + keep / (1 - probability) (f(x) - x), so that on average it gives f(x), and evaluation needs no
    other scale.  Every layer is computed; nothing is saved by skipping.

    Args:
        model: In training mode; in evaluation mode no layer is skipped.
        last: Probability for the last layer.
        micro: What is about to pass through.
    """
    layers = stacked_layers(model)
    with ExitStack() as stack:
        for height, layer in enumerate(layers, 1):
            hook = _skip_hook(last * height / len(layers), micro)
            stack.callback(layer.register_forward_hook(hook, with_kwargs=True).remove)
        yield


def _skip_hook(probability: float, micro: MicroBatch) -> Any:
    """A hook that takes back what a layer did to some sequences."""

    def skip(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        if not module.training:
            return None
        before: Tensor = args[0] if args else named["hidden_states"]
        after: Tensor = output[0] if isinstance(output, tuple) else output
        if before.shape != after.shape:  # from the last layer on an encoder hands on one token of each packed text
            assert micro.document_starts is not None
            before = before[0, micro.document_starts[:-1]][:, None]
        keep = torch.full(micro.lengths.shape, 1 - probability, device=after.device)
        factor = keep.bernoulli() / (1 - probability)
        scale = (factor[:, None, None] if len(after) == len(factor) else broadcast_per_sequence(factor, micro)).to(
            after.dtype
        )
        mixed = before + scale * (after - before)
        return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

    return skip


def mix_weights(weight: Tensor, pretrained: Tensor, probability: float) -> Tensor:
    """A weight of which each entry is the pretrained one with `probability`, corrected so that its mean is `weight`.

    Args:
        weight: As it is now.
        pretrained: As it was, of the same shape.
        probability: Below 1.
    """
    moved = weight - pretrained
    keep = torch.full_like(moved, 1 - probability).bernoulli()
    return pretrained + keep * moved / (1 - probability)


class Mixout(nn.Module):
    """Passes micro-batches through a model whose linear layers are mixed; the model itself keeps its weights.

    Args:
        logits: The logits of a model for a micro-batch, as the task computes them.
        model: The trained model; its weights now are the pretrained ones.
        layers: The linear layers to mix.
        probability: That an entry is swapped.
    """

    def __init__(
        self,
        logits: Callable[[PreTrainedModel, MicroBatch], Tensor],
        model: PreTrainedModel,
        layers: Iterable[LinearWeight],
        probability: float,
    ) -> None:
        super().__init__()
        self.model, self.model_logits, self.layers, self.probability = model, logits, list(layers), probability
        self.pretrained = [layer.weight.detach().clone() for layer in self.layers]

    def forward(self, micro: MicroBatch) -> Tensor:
        """Logits of a micro-batch with the weights that stand in the model."""
        return self.model_logits(self.model, micro)

    def logits(self, micro: MicroBatch) -> Tensor:
        """Logits of a micro-batch with freshly mixed weights."""
        weights = {}
        for place, layer in enumerate(self.layers):
            self.pretrained[place] = self.pretrained[place].to(layer.weight.device)
            weights[f"model.{layer.name}"] = mix_weights(layer.weight, self.pretrained[place], self.probability)
        logits: Tensor = functional_call(self, weights, (micro,))
        return logits
