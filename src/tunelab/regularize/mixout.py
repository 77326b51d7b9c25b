"""Mixout: weights are swapped with the pretrained ones at random (Lee, Cho and Kang 2020, Mixout).

Where dropout falls back to zero, this falls back to the model that training came from.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel

from tunelab.data.examples import Micro
from tunelab.regularize.linear import Linear
from tunelab.tasks.base import Task


def mixed(weight: Tensor, pretrained: Tensor, probability: float) -> Tensor:
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
        task: Knows how a micro-batch passes through.
        model: What is trained; as it is now it counts as pretrained.
        layers: The linear layers to mix.
        probability: That an entry is swapped.
    """

    def __init__(self, task: Task, model: PreTrainedModel, layers: Iterable[Linear], probability: float) -> None:
        super().__init__()
        self.model, self.task, self.layers, self.probability = model, task, list(layers), probability
        self.pretrained = [layer.weight.detach().clone() for layer in self.layers]

    def forward(self, micro: Micro) -> Tensor:
        """Logits of a micro-batch with the weights that stand in the model."""
        return self.task.logits(self.model, micro)

    def logits(self, micro: Micro) -> Tensor:
        """Logits of a micro-batch with freshly mixed weights."""
        weights = {}
        for place, layer in enumerate(self.layers):
            self.pretrained[place] = self.pretrained[place].to(layer.weight.device)
            weights[f"model.{layer.name}"] = mixed(layer.weight, self.pretrained[place], self.probability)
        logits: Tensor = functional_call(self, weights, (micro,))
        return logits
