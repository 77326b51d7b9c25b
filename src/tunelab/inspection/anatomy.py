"""The parts of a model: its layers, their parameters, what of them learns."""

from collections.abc import Mapping
from dataclasses import dataclass

from transformers import PreTrainedModel

from tunelab.models.freeze import depths


@dataclass(frozen=True)
class Part:
    """Everything at one depth.

    Attributes:
        name: As `Depths.name` calls it.
        parameters: How many; shared ones count at the lowest place.
        trainable: How many of them learn.
    """

    name: str
    parameters: int
    trainable: int


def parts(model: PreTrainedModel) -> list[Part]:
    """The parts from the bottom up; those without a parameter are left out."""
    high = depths(model)
    counts: dict[int, list[int]] = {}
    for name, weight in model.named_parameters():
        entry = counts.setdefault(high.of[name], [0, 0])
        entry[0] += weight.numel()
        entry[1] += weight.numel() if weight.requires_grad else 0
    return [Part(high.name(depth), *counts[depth]) for depth in sorted(counts)]


def sizes(model: PreTrainedModel) -> Mapping[str, str | int | None]:
    """The architecture in numbers, by name."""
    config = model.config.get_text_config()
    return {
        "family": model.config.model_type,
        "layers": getattr(config, "num_hidden_layers", None),
        "width": getattr(config, "hidden_size", None),
        "feed-forward": getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None),
        "heads": getattr(config, "num_attention_heads", None),
        "key and value heads": getattr(config, "num_key_value_heads", None),
        "context": getattr(config, "max_position_embeddings", None),
        "vocabulary": config.vocab_size,
        "attention": model.config._attn_implementation,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "trainable": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
    }
