"""Changes to the layers of a pretrained model: fewer of them, the top ones initialized anew, activations not kept."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from tunelab.config.schema import ModelConfig, PretrainedModelConfig
from tunelab.errors import ConfigError, first_line
from tunelab.language.translation import translate
from tunelab.models.freezing import layer_stack


def select_layers(total: int, count: int, keep: str) -> list[int]:
    """The layers that stay, lowest first, counted from 0.

    Args:
        total: Layers of the whole model.
        count: How many stay.
        keep: `bottom`, `top`, or `spread`, which takes the first, the last and evenly between.
    """
    if keep == "bottom" or count == 1:
        return list(range(count)) if keep != "top" else [total - 1]
    if keep == "top":
        return list(range(total - count, total))
    return [round(index * (total - 1) / (count - 1)) for index in range(count)]


def layer_faults(config: PretrainedConfig, settings: ModelConfig) -> list[str]:
    """Faults of `depth`, `keep` and `reinit_top` with the layers that this architecture has."""
    if not isinstance(settings, PretrainedModelConfig) or (settings.depth is None and not settings.reinit_top):
        return []
    depth, fresh = settings.depth, settings.reinit_top
    text = config.get_text_config()
    total = getattr(text, "num_hidden_layers", None)
    source = f"{settings.path} ({config.model_type})"
    if not isinstance(total, int):
        return [
            translate(
                "model.depth and model.reinit_top need layers to count, and {source} names no number of them",
                source=source,
            )
        ]
    faults = []
    if depth is not None and depth > total:
        faults.append(
            translate(
                "model.depth={depth} is more than the {total} [layer|layers] of {source}; give {total} or fewer",
                depth=depth,
                total=total,
                source=source,
            )
        )
    if fresh > total:
        faults.append(
            translate(
                "model.reinit_top={fresh} is more than the {total} [layer|layers] of {source}; give {total} or fewer",
                fresh=fresh,
                total=total,
                source=source,
            )
        )
    scaled = getattr(text, "scale_attn_by_inverse_layer_idx", False)  # of some GPT-2: a layer knows its height
    if depth is not None and depth < total and settings.keep not in (None, "bottom") and scaled:
        faults.append(
            translate(
                "model.keep={keep}: each layer of {source} scales its attention by its own height, "
                "so it computes something else when it moves; take model.keep=bottom",
                keep=settings.keep,
                source=source,
            )
        )
    return faults


def truncate_config(config: PretrainedConfig, chosen: Sequence[int]) -> PretrainedConfig:
    """The architecture with these layers only.

    Raises:
        ConfigError: If it does not come back from its own file as it is.
    """
    cut = deepcopy(config)
    text = cut.get_text_config()
    total = text.num_hidden_layers
    for name, value in list(vars(text).items()):
        if "layer" in name and isinstance(value, list | tuple) and len(value) == total:
            setattr(text, name, [value[index] for index in chosen])
    text.num_hidden_layers = len(chosen)
    try:
        again = type(cut).from_dict(cut.to_dict()).to_dict()
    except Exception as fault:  # each family has checks of its own
        raise ConfigError(not_truncatable_message(config, first_line(fault))) from fault
    if differs := sorted(name for name, value in cut.to_dict().items() if again.get(name) != value):
        raise ConfigError(
            not_truncatable_message(config, translate("{names} would be read back otherwise", names=", ".join(differs)))
        )
    return cut


@torch.no_grad()
def truncate_model(model: PreTrainedModel, auto: Any, chosen: Sequence[int]) -> PreTrainedModel:
    """A model made of these layers of another; all else is kept.

    It is built anew from the cut architecture: what a layer knows of its place (the cache's index, its window) is then
    what a reloaded export will have.

    Args:
        model: The whole model.
        auto: The Auto class it was loaded with.
        chosen: Layers that stay, counted from 0.

    Raises:
        ConfigError: If the layers of this family are not alike, so that one cannot stand in another's place.
    """
    stack, layers = layer_stack(model)
    if not layers:
        raise ConfigError(not_truncatable_message(model.config, translate("no stack of layers was found")))
    small: PreTrainedModel = auto.from_config(
        truncate_config(model.config, chosen),
        dtype=torch.float32,
        attn_implementation=model.config._attn_implementation,
    )
    new_prefix = {f"{stack}.{old}": f"{stack}.{new}" for new, old in enumerate(chosen)}
    weights = {}
    for name, weight in model.state_dict().items():
        own = ".".join(name.split(".")[: stack.count(".") + 2])
        if own in new_prefix:
            weights[new_prefix[own] + name[len(own) :]] = weight
        elif not name.startswith(f"{stack}."):
            weights[name] = weight
    try:
        small.load_state_dict(weights)
    except RuntimeError as fault:
        lines = [line.strip() for line in str(fault).splitlines()]
        raise ConfigError(
            not_truncatable_message(model.config, f"{lines[min(1, len(lines) - 1)]} Its layers differ")
        ) from fault
    if model.can_generate():
        small.generation_config = model.generation_config
    return small


def not_truncatable_message(config: PretrainedConfig, reason: str) -> str:
    """The message for a family that does not take the cut."""
    return translate(
        "model.depth: {model_type} cannot be cut this way ({reason}); try model.keep=bottom "
        "or spread, which leave the first layer in its place, or leave model.depth at null",
        model_type=config.model_type,
        reason=reason,
    )


def reinitialize_top_layers(model: PreTrainedModel, count: int) -> None:
    """Draw the highest `count` layers anew, and the pooler where there is one, by the family's own rule.

    The norm after the last layer, embeddings and output head stay as they were pretrained.  Torch's generator is used,
    so seed it before.

    Raises:
        ConfigError: If no stack of that many layers is found.
    """
    stack, layers = layer_stack(model)
    if not 0 < count <= layers:
        raise ConfigError(
            translate(
                "model.reinit_top={count}: this {model_type} model has {layers} [layer|layers] that can be told apart",
                count=count,
                model_type=model.config.model_type,
                layers=layers,
            )
        )
    fresh = [model.get_submodule(f"{stack}.{layer}") for layer in range(layers - count, layers)]
    fresh += [module for name, module in model.named_modules() if name.rpartition(".")[2] == "pooler"]
    for part in fresh:
        for owner in [*part.modules(), *part.parameters(), *part.buffers()]:
            vars(owner).pop("_is_hf_initialized", None)  # else transformers takes them for loaded, and leaves them
        for module in innermost_first(part):
            model._init_weights(module)


def innermost_first(part: nn.Module) -> list[nn.Module]:
    """A module and all within it, the innermost first: outer rules refine inner ones."""
    return [*(inner for child in part.children() for inner in innermost_first(child)), part]


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Have each layer keep its inputs alone in training, and be computed once more in the backward pass.

    Raises:
        ConfigError: If the layers of this model cannot.
    """
    # the older name goes with transformers 6
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})
    except ValueError as fault:
        raise ConfigError(
            f"memory.activation_checkpointing=true: {model.config.model_type} has no layers that can be computed once "
            f"more ({first_line(fault)}); a smaller micro_tokens takes less memory too"
        ) from fault
    if hasattr(model, "_require_grads_hook"):
        model.disable_input_require_grads()  # else frozen embeddings would have all layers computed backward
