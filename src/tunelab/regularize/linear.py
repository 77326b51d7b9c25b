"""The linear layers of a model that learn."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True)
class Linear:
    """The matrix of a linear layer.

    Attributes:
        name: Of the parameter.
        weight: Two dimensions.
        units: Which of them counts the units that the layer feeds.
    """

    name: str
    weight: nn.Parameter
    units: int


def linear_layers(model: PreTrainedModel) -> Iterator[Linear]:
    """Every linear layer whose matrix learns; an output head that is tied to the embeddings is not among them."""
    table = getattr(model.get_input_embeddings(), "weight", None)
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | Conv1D) or not isinstance(weight := module.weight, nn.Parameter):
            continue
        if weight.requires_grad and weight is not table:
            yield Linear(f"{name}.weight", weight, 1 if isinstance(module, Conv1D) else 0)
