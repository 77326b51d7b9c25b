"""The architecture of a model before it has weights: where it is read from, and what may be changed in it."""

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase

from tunelab.data.places import locate
from tunelab.errors import ConfigError
from tunelab.models.cut import layer_faults
from tunelab.models.scratch import scratch_config
from tunelab.models.unreadable import not_loadable

ENCODER_DECODER = "reads and writes with two stacks; pick a decoder (GPT-like) or an encoder (BERT-like)"
ROBERTA_LIKE = {"roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "xmod", "data2vec-text"}


def load_config(settings: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """The architecture: read from the model's folder, or made from depth, width and heads.

    Raises:
        ConfigError: If there is none at that place, or the family is not supported.
    """
    if settings.get("kind") == "scratch":
        return scratch_config(settings, tokenizer)
    config = read_config(str(settings["path"]))
    if faults := layer_faults(config, settings):
        raise ConfigError.listing(faults)
    return config


def refuse_layers(settings: Mapping[str, Any]) -> None:
    """Stop a run whose model lacks the layers it asks for, before data and weights are read.

    Raises:
        ConfigError: Naming every fault.
    """
    asked = settings.get("depth") is not None or settings.get("reinit_top")
    if settings.get("kind") == "scratch" or not asked:
        return
    if faults := layer_faults(read_config(str(settings["path"])), settings):
        raise ConfigError.listing(faults)


def read_config(source: str) -> PretrainedConfig:
    """The architecture of a model's folder or hub id.

    Raises:
        ConfigError: If there is none at that place, or the family is not supported.
    """
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(locate(source) or source, trust_remote_code=False)
    except (OSError, ValueError) as fault:
        raise ConfigError(not_loadable("model", source, fault)) from fault
    if config.is_encoder_decoder:
        raise ConfigError(f"model.path={source}: {config.model_type} {ENCODER_DECODER}")
    return config


def context_limit(config: PretrainedConfig) -> int | None:
    """The longest sequence the model takes, in tokens; None where it has no bound."""
    for name in ("max_position_embeddings", "n_positions"):
        if isinstance(found := getattr(config, name, None), int):
            # RoBERTa-like models spend the first positions on padding
            offset = (config.pad_token_id or 0) + 1 if config.model_type in ROBERTA_LIKE else 0
            return found - offset
    return None


def no_attention(name: str, family: str, fault: Exception) -> str:
    """The message for a model that does not take the attention asked for."""
    reason = str(fault).strip().splitlines()[0].split(". ")[0]
    return f"model.attention={name}: {family} does not take it here ({reason}); take model.attention=auto, or eager"
