"""From the `model` block of the config to a network and its tokenizer."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tunelab.data.places import locate
from tunelab.errors import ConfigError
from tunelab.models.scratch import scratch_config

AUTO = {"causal": AutoModelForCausalLM, "sequence": AutoModelForSequenceClassification}
ENCODER_DECODER = "reads and writes with two stacks; pick a decoder (GPT-like) or an encoder (BERT-like)"


def load_tokenizer(settings: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """The tokenizer of the model, or the one `model.tokenizer` names.

    Raises:
        ConfigError: If there is none at that place.
    """
    source = str(settings.get("tokenizer") or settings["path"])
    place = locate(source)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(place or source, trust_remote_code=False)
    except (OSError, ValueError) as fault:
        raise ConfigError(not_loadable("tokenizer", source, fault)) from fault
    return tokenizer


def load_config(settings: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """The architecture: read from the model's folder, or made from depth, width and heads.

    Raises:
        ConfigError: If there is none at that place, or the family is not supported.
    """
    if settings.get("kind") == "scratch":
        return scratch_config(settings, tokenizer)
    source = str(settings["path"])
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(locate(source) or source, trust_remote_code=False)
    except (OSError, ValueError) as fault:
        raise ConfigError(not_loadable("model", source, fault)) from fault
    if config.is_encoder_decoder:
        raise ConfigError(f"model.path={source}: {config.model_type} {ENCODER_DECODER}")
    return config


def load_model(
    settings: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    *,
    head: str,
    options: Mapping[str, Any],
    dropout: float | None = None,
) -> PreTrainedModel:
    """The network in float32, whatever type its file has: low-precision masters lose small updates.

    Args:
        settings: The `model` block.
        tokenizer: Fixes the vocabulary of a model made from scratch.
        head: "causal" or "sequence".
        options: What the task asks of the head (number of labels and their names).
        dropout: Replaces every dropout rate of the architecture; None keeps them.

    Raises:
        ConfigError: If the weights cannot be loaded, or the architecture has no dropout to set.
    """
    config = load_config(settings, tokenizer)
    for name, value in options.items():
        setattr(config, name, value)
    if dropout is not None:
        set_dropout(config, dropout)
    attention = None if settings.get("attention", "auto") == "auto" else str(settings["attention"])
    auto, source = AUTO[head], str(settings["path"])
    try:
        if settings.get("kind") == "scratch" or settings.get("weights", "pretrained") == "random":
            model = auto.from_config(config, dtype=torch.float32, attn_implementation=attention)
        else:
            model = with_weights(auto, locate(source) or source, config, attention, head)
    except (OSError, ValueError, ImportError) as fault:
        raise ConfigError(not_loadable("model", source, fault)) from fault
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    network: PreTrainedModel = model
    return network


def with_weights(auto: Any, source: Any, config: PretrainedConfig, attention: str | None, head: str) -> PreTrainedModel:
    """The weights of a folder or hub id; a head of other labels than ours starts anew.

    Raises:
        ConfigError: If the body of the network is not all there: such a model would train, and never be good.
    """
    reports = logging.getLogger("transformers.modeling_utils")
    level = reports.level
    reports.setLevel(logging.ERROR)  # what it would report is judged below
    try:
        model, found = auto.from_pretrained(
            source,
            config=config,
            dtype=torch.float32,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=head == "sequence",
            output_loading_info=True,
        )
    finally:
        reports.setLevel(level)
    body = f"{model.base_model_prefix}."
    # sentence encoders come without the pooler that labels are read from
    lost = [key for key in found["missing_keys"] if (key.startswith(body) or head == "causal") and "pooler" not in key]
    if lost:
        raise ConfigError(
            f"{source} lacks {len(lost)} weights of a {config.model_type} model, such as {sorted(lost)[0]}; "
            "they would start at random. Check that config.json belongs to model.safetensors"
        )
    network: PreTrainedModel = model
    return network


def set_dropout(config: PretrainedConfig, rate: float) -> None:
    """Set every dropout rate of an architecture.

    Raises:
        ConfigError: If it has none, so the setting would change nothing.
    """
    rates = [
        name
        for name, value in config.to_dict().items()
        if ("dropout" in name or name.endswith("pdrop"))
        and isinstance(value, int | float)
        and not isinstance(value, bool)
    ]
    if not rates:
        raise ConfigError(
            f"regularization.dropout={rate}: {config.model_type} has no dropout; use regularization=decay"
        )
    for name in rates:
        setattr(config, name, rate)


def context_limit(config: PretrainedConfig) -> int | None:
    """The longest sequence the model takes, in tokens; None where it has no bound."""
    for name in ("max_position_embeddings", "n_positions"):
        if isinstance(found := getattr(config, name, None), int):
            # RoBERTa-like models spend the first positions on padding
            offset = (config.pad_token_id or 0) + 1 if config.model_type in ROBERTA_LIKE else 0
            return found - offset
    return None


ROBERTA_LIKE = {"roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "xmod", "data2vec-text"}


def not_loadable(what: str, source: str, fault: Exception) -> str:
    """The message for a model or tokenizer that does not load."""
    reason = str(fault).strip().splitlines()[0] if str(fault).strip() else type(fault).__name__
    return (
        f"no {what} could be loaded from '{source}': {reason}. It must be a folder with config.json, "
        "model.safetensors and tokenizer files, or the id of a model hub that this machine can reach"
    )
