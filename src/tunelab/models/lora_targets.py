"""Which linear layers a low-rank adapter goes beside, by family, as suffixes of module names."""

from collections.abc import Mapping, Sequence

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tunelab.errors import ConfigError

GATED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BERT_LIKE = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")
TARGETS: Mapping[str, Sequence[str]] = {
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "gpt_neox": ("query_key_value", "attention.dense", "dense_h_to_4h", "dense_4h_to_h"),
    "opt": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "smollm3", "olmo2", "granite", "cohere"), GATED),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), GATED),
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), BERT_LIKE),
    "distilbert": ("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"),
    "modernbert": ("Wqkv", "Wo", "Wi"),
}


def low_rank_targets(model: PreTrainedModel, wanted: str | Sequence[str]) -> list[str]:
    """The suffixes to adapt: as asked for, or those of the model's family.

    Args:
        model: A transformers model without adapters.
        wanted: "auto", one suffix, or several.

    Raises:
        ConfigError: If the family is unknown, or a suffix meets no linear layer of the body.
    """
    linear = linear_layers(model)
    there = ", ".join(dict.fromkeys(last(name) for name in linear))
    family = model.config.get_text_config().model_type
    if wanted == "auto":
        if family not in TARGETS:
            raise ConfigError(
                f"adapter.targets=auto: the layers of a {family} model are not known by name. Name them by the ends "
                f"of their names, as adapter.targets=[...]; its linear layers are {there}"
            )
        return list(TARGETS[family])
    asked = [wanted] if isinstance(wanted, str) else list(wanted)
    lost = [suffix for suffix in asked if not any(matches(name, suffix) for name in linear)]
    if lost or not asked:
        raise ConfigError(
            f"adapter.targets={lost or asked}: no linear layer below the head ends like that; choose from {there}"
        )
    return asked


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers of the body; the head and a pooler are trained in full, never adapted."""
    kept = set(head_modules(model))
    body = f"{model.base_model_prefix}."
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and name.startswith(body)
        and not any(name == other or name.startswith(f"{other}.") for other in kept)
    ]


def norm_layers(model: PreTrainedModel) -> list[str]:
    """Full names of the normalisation layers of the body."""
    body = f"{model.base_model_prefix}."
    kept = [f"{name}." for name in head_modules(model)]
    return [
        name
        for name, module in model.named_modules()
        if name.startswith(body)
        and not any(name.startswith(other) for other in kept)
        and "norm" in type(module).__name__.lower()
        and any(isinstance(weight, nn.Parameter) for weight in module.parameters(recurse=False))
    ]


def head_modules(model: PreTrainedModel) -> list[str]:
    """Full names of what turns hidden states into labels or numbers; none for a language model.

    All that stands outside the body, and the pooler that sentence encoders come without.
    """
    if model.can_generate():
        return []
    outside = [
        name for name, module in model.named_children() if name != model.base_model_prefix and has_weights(module)
    ]
    inside = [name for name, module in model.named_modules() if last(name) == "pooler" and has_weights(module)]
    return inside + outside


def has_weights(module: nn.Module) -> bool:
    """Whether there is anything to train."""
    return next(module.parameters(), None) is not None


def last(name: str) -> str:
    """The last part of a dotted name."""
    return name.rpartition(".")[2]


def matches(name: str, suffix: str) -> bool:
    """Whether a module's name ends in whole words like this."""
    return name == suffix or name.endswith(f".{suffix}")
