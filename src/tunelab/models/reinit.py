"""The top layers of a pretrained model start anew: they are the most tied to what it was pretrained for.

Zhang et al. 2021, "Revisiting Few-sample BERT Fine-tuning": with few examples, encoders fine-tune better and more
evenly over seeds when pooler and top layers are drawn again.
"""

from torch import nn
from transformers import PreTrainedModel

from tunelab.errors import ConfigError
from tunelab.models.freeze import layer_stack


def reinit_top(model: PreTrainedModel, count: int) -> None:
    """Draw the highest `count` layers anew, and the pooler where there is one, by the family's own rule.

    The norm after the last layer, embeddings and output head stay as they were pretrained.  Torch's generator is used,
    so seed it before.

    Raises:
        ConfigError: If no stack of that many layers is found.
    """
    stack, layers = layer_stack(model)
    if not 0 < count <= layers:
        raise ConfigError(
            f"model.reinit_top={count}: this {model.config.model_type} model has {layers} layers that can be told apart"
        )
    fresh = [model.get_submodule(f"{stack}.{layer}") for layer in range(layers - count, layers)]
    fresh += [module for name, module in model.named_modules() if name.rpartition(".")[2] == "pooler"]
    for part in fresh:
        for owner in [*part.modules(), *part.parameters(), *part.buffers()]:
            vars(owner).pop("_is_hf_initialized", None)  # else transformers takes them for loaded, and leaves them
        for module in children_first(part):
            model._init_weights(module)


def children_first(part: nn.Module) -> list[nn.Module]:
    """A module and all within it, the innermost first: outer rules refine inner ones."""
    return [*(inner for child in part.children() for inner in children_first(child)), part]
