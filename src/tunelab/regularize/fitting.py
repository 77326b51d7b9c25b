"""Whether a model has what a method works on."""

from torch import nn
from transformers import PreTrainedModel

from tunelab.errors import ConfigError
from tunelab.models.freeze import depths
from tunelab.regularize.dropout import rates
from tunelab.regularize.linear import Linear, linear_layers
from tunelab.regularize.stochastic_depth import layers_of
from tunelab.regularize.wanted import Wanted
from tunelab.tasks.base import Task


def mixable(task: Task, model: PreTrainedModel) -> list[Linear]:
    """The linear layers that have a pretrained state to fall back to: a new head has none."""
    high = depths(model)
    return [layer for layer in linear_layers(model) if task.head == "causal" or high.of[layer.name] != high.head]


def is_random(model: PreTrainedModel, wanted: Wanted) -> bool:
    """Whether two passes in training mode differ."""
    layers = any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
    noise = (wanted.neftune, wanted.mixout, wanted.stochastic_depth, *rates(model.config).values())
    return layers or any(noise)


def refuse_unfit(task: Task, model: PreTrainedModel, wanted: Wanted) -> None:
    """Stop a run whose model gives a method nothing to work on.

    Raises:
        ConfigError: Naming every such method.
    """
    family, faults = model.config.model_type, []
    if wanted.rdrop and not is_random(model, wanted):
        faults.append(
            f"regularization.rdrop={wanted.rdrop:g} compares two passes with different dropout, and this {family} "
            "model drops nothing, so they would agree; set regularization.dropout=0.1, or a noise such as neftune"
        )
    if wanted.stochastic_depth and not layers_of(model):
        faults.append(
            f"regularization.stochastic_depth={wanted.stochastic_depth:g}: no stack of layers was found in this "
            f"{family} model; take regularization=dropout"
        )
    if wanted.mixout and not mixable(task, model):
        faults.append(
            f"regularization.mixout={wanted.mixout:g} swaps weights of linear layers, and none below a new head learns "
            "here; take adapter=full or adapter=lora"
        )
    if wanted.max_norm and not any(True for _ in linear_layers(model)):
        faults.append(
            f"regularization.max_norm={wanted.max_norm:g} bounds rows of linear layers, and none learns here; take "
            "adapter=full or adapter=lora"
        )
    if wanted.l1 and not any(p.requires_grad and p.ndim >= 2 for p in model.parameters()):
        faults.append(f"regularization.l1={wanted.l1:g} shrinks matrices, and none learns here; take adapter=lora")
    if faults:
        raise ConfigError.listing(faults)
