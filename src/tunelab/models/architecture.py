"""The architecture of a model before it has weights: where it is read from, its dropout, and errors that say why it
cannot be read.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Final

import torch
from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase

from tunelab.config.resource_paths import resolve_path
from tunelab.config.schema import AdapterConfig, ModelConfig, PretrainedModelConfig, ScratchModelConfig
from tunelab.errors import ConfigError, TuneLabError, first_line
from tunelab.language.translation import message, translate
from tunelab.models.pretrained_layers import layer_faults
from tunelab.models.scratch import scratch_config

ENCODER_DECODER_MESSAGE = message(
    "reads and writes with two stacks; pick a decoder (GPT-like) or an encoder (BERT-like)"
)
ROBERTA_FAMILIES = {"roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "xmod", "data2vec-text"}


def load_architecture(settings: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """The architecture: read from the model's folder, or made from depth, width and heads.

    Raises:
        ConfigError: If there is none at that place, or the family is not supported.
    """
    if isinstance(settings, ScratchModelConfig):
        return scratch_config(settings, tokenizer)
    config = read_pretrained_config(settings.path)
    if faults := layer_faults(config, settings):
        raise ConfigError.listing(faults)
    return config


def check_layer_settings(settings: ModelConfig) -> None:
    """Stop a run whose model lacks the layers that the settings need, before data and weights are read.

    Raises:
        ConfigError: Naming every fault.
    """
    if not isinstance(settings, PretrainedModelConfig) or (settings.depth is None and not settings.reinit_top):
        return
    if faults := layer_faults(read_pretrained_config(settings.path), settings):
        raise ConfigError.listing(faults)


@contextmanager
def pretrained_place(what: str, source: str) -> Iterator[Path | str]:
    """The folder or hub id to read a model or tokenizer from; a fault of reading it says what is missing there.

    Raises:
        ConfigError: Within this block, for what the loader raised.
    """
    try:
        yield resolve_path(source) or source
    except TuneLabError:
        raise
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as fault:  # loaders raise errors of every kind for a file that is not as they wrote it
        raise ConfigError(not_loadable_message(what, source, fault)) from fault


def read_pretrained_config(source: str) -> PretrainedConfig:
    """The architecture of a model's folder or hub id.

    Raises:
        ConfigError: If there is none at that place, or the family is not supported.
    """
    with pretrained_place("model", source) as place:
        if isinstance(place, Path) and (place / "adapter_config.json").is_file():
            raise ConfigError(adapter_beside_model_message(source))
        config: PretrainedConfig = AutoConfig.from_pretrained(place, trust_remote_code=False)
        text_config = config.get_text_config()
    if faults := size_faults(text_config):
        raise ConfigError.listing(
            [translate("model.path={source}: config.json has {fault}", source=source, fault=fault) for fault in faults]
        )
    if config.is_encoder_decoder:
        raise ConfigError(
            translate(
                "model.path={source}: {model_type} {encoder_decoder_message}",
                source=source,
                model_type=config.model_type,
                encoder_decoder_message=ENCODER_DECODER_MESSAGE,
            )
        )
    return config


LARGEST_SIZES: Final = {  # name of a size to more than any model has: beyond it building one would never end
    **{"num_hidden_layers": 2_000, "num_attention_heads": 4_096, "num_key_value_heads": 4_096, "head_dim": 65_536},
    **{"hidden_size": 1_000_000, "intermediate_size": 10_000_000, "vocab_size": 10_000_000, "type_vocab_size": 100_000},
    "max_position_embeddings": 100_000_000,
}


def size_faults(config: PretrainedConfig) -> list[str]:
    """Sizes and rates of an architecture that no model can have, such as no heads or a negative width."""
    faults = list[str]()
    for name, largest in LARGEST_SIZES.items():
        size = getattr(config, name, None)
        if size is None or isinstance(size, list | tuple):  # of families with a size for each layer
            continue
        if isinstance(size, bool) or not isinstance(size, int):
            faults.append(translate("{name}={size!r}, which is no whole number", name=name, size=size))
        elif not 1 <= size <= largest:
            faults.append(
                translate("{name}={size:,}; models have 1 to {largest:,}", name=name, size=size, largest=largest)
            )
    for name, value in config.to_dict().items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        if ("dropout" in name or name.endswith("pdrop")) and not 0 <= value < 1:
            faults.append(
                translate("{name}={value}; a rate of dropout is at least 0 and below 1", name=name, value=value)
            )
        elif name.endswith(("_eps", "_epsilon")) and not 0 < value < 1:
            faults.append(translate("{name}={value}; it must be above 0 and below 1", name=name, value=value))
        elif not math.isfinite(value):
            faults.append(translate("{name}={value}, which is no finite number", name=name, value=value))
    return faults


def adapter_beside_model_message(source: str) -> str:
    """The message for a base model with the files of an adapter in its folder, or for an adapter alone."""
    place = resolve_path(source)
    if place is not None and not (place / "config.json").is_file():
        return translate(
            "model.path={source} is an adapter (adapter_config.json) and no model; merge it into "
            "its base first, such as with merge_and_unload of PEFT or tunelab export RUN, and "
            "name the merged folder",
            source=source,
        )
    return translate(
        "model.path={source} holds a model and an adapter (adapter_config.json): "
        "transformers would load both, train on top of the adapter, and write an export "
        "without the weights that a plain load needs. Move adapter_config.json and "
        "adapter_model.safetensors into a folder of their own to train the model alone, or "
        "merge them first",
        source=source,
    )


def context_limit(config: PretrainedConfig) -> int | None:
    """The longest sequence the model takes, in tokens; None where it has no bound."""
    for name in ("max_position_embeddings", "n_positions"):
        if isinstance(limit := getattr(config, name, None), int):
            # RoBERTa-like models spend the first positions on padding
            offset = (config.pad_token_id or 0) + 1 if config.model_type in ROBERTA_FAMILIES else 0
            return limit - offset
    return None


def sequence_limit(
    model: ModelConfig, adapter: AdapterConfig, tokenizer: PreTrainedTokenizerBase, *, max_tokens: int | None
) -> int | None:
    """The longest sequence of the data, in tokens: what the model takes, less a soft prompt, and at most `max_tokens`;
    None without a bound.
    """
    context = context_limit(load_architecture(model, tokenizer))
    if context is not None and adapter.kind == "prompt":
        context -= adapter.length
    return min((limit for limit in (context, max_tokens) if limit is not None), default=None)


@contextmanager
def attention_faults_explained(attention: str | None, family: str) -> Iterator[None]:
    """Within this block a fault of the configured attention says which setting it comes from.

    Raises:
        ConfigError: If the model does not take this attention here.
    """
    try:
        yield
    except (OSError, ValueError, ImportError) as fault:
        if attention is None or "attention" not in str(fault).lower():
            raise
        reason = first_line(fault).split(". ")[0]
        raise ConfigError(
            translate(
                "model.attention={attention}: {family} does not take it here ({reason}); take "
                "model.attention=auto, or eager",
                attention=attention,
                family=family,
                reason=reason,
            )
        ) from fault


def dropout_rates(config: PretrainedConfig) -> dict[str, float]:
    """Every dropout rate of an architecture, by its own name; a rate that follows another one is not among them."""
    return {
        name: float(value)
        for name, value in config.to_dict().items()
        if ("dropout" in name or name.endswith("pdrop"))
        and isinstance(value, int | float)
        and not isinstance(value, bool)
    }


def is_attention_dropout(name: str) -> bool:
    """Whether a rate of that name drops attention weights."""
    return name.startswith(("attention", "attn"))


def set_dropout(config: PretrainedConfig, everywhere: float | None, attention: float | None) -> None:
    """Set dropout rates of an architecture.

    Args:
        config: Changed in place, before the network is built from it.
        everywhere: Replaces every rate; None keeps them.
        attention: Replaces the rates on attention weights; None leaves them to `everywhere`.

    Raises:
        ConfigError: Where there is no such rate, so the setting would change nothing.
    """
    rates = dropout_rates(config)
    changes = {
        "dropout": (everywhere, list(rates)),
        "attention_dropout": (attention, list(filter(is_attention_dropout, rates))),
    }
    faults = [
        translate(
            "regularization.{key}={rate}: {model_type} has no such dropout to set; take "
            "regularization=l2, or stochastic_depth, which every stack of layers has",
            key=key,
            rate=rate,
            model_type=config.model_type,
        )
        for key, (rate, names) in changes.items()
        if rate is not None and not names
    ]
    if faults:
        raise ConfigError.listing(faults)
    for rate, names in changes.values():
        for name in names if rate is not None else ():
            setattr(config, name, rate)


def describe_dropout(config: PretrainedConfig) -> str:
    """The rates in words, and what the architecture lacks; "none" where nothing is dropped."""
    rates = dropout_rates(config)
    if not any(rates.values()):
        return "none"
    text = ", ".join(f"{name} {rate:g}" for name, rate in rates.items() if rate)
    return (
        text
        if not all(map(is_attention_dropout, rates))
        else translate("{words} ({model_type} drops nothing else)", words=text, model_type=config.model_type)
    )


WEIGHT_FILES: Final = ("*.safetensors", "*.safetensors.index.json")
TOKENIZER_FILES: Final = ("tokenizer.json", "vocab.*", "*.model", "tekken.json")


def not_loadable_message(what: str, source: str, fault: Exception) -> str:
    """The message for a model or tokenizer that does not load: what the place lacks, else what the loader said."""
    reason, place = first_line(fault).rstrip(". "), resolve_path(source)
    if place is not None and place.is_file():
        reason = translate("it is a file; name the folder that it lies in, {parent}", parent=place.parent)
    elif place is not None and (lost := missing_files(place, what)):
        reason = translate("the folder has no {names}", names=" and no ".join(lost))
    elif place is None and (Path(source).is_absolute() or len(Path(source).parts) > 2 or Path(source).parent.is_dir()):
        near = get_close_matches(Path(source).name, [path.name for path in sibling_paths(Path(source))], 1)
        reason = translate("there is no such folder here") + (
            translate("; did you mean '{parent}'?", parent=Path(source).parent / near[0]) if near else ""
        )
        reason += translate(", and as the id of a hub: {reason}", reason=first_line(fault).rstrip(". "))
    return translate(
        "no {what} could be loaded from '{source}': {reason}. It must be a folder with "
        "config.json, model.safetensors and tokenizer files, or the id of a model hub that "
        "this machine can reach",
        what=what,
        source=source,
        reason=reason,
    )


def missing_files(folder: Path, what: str) -> list[str]:
    """Files without which a model or tokenizer cannot be read from a folder."""
    needed = {"model": {"config.json": ("config.json",), translate("weights (*.safetensors)"): WEIGHT_FILES}}
    required = needed.get(what, {translate("tokenizer (tokenizer.json)"): TOKENIZER_FILES})
    return [name for name, patterns in required.items() if not any(any(folder.glob(pattern)) for pattern in patterns)]


def sibling_paths(path: Path) -> list[Path]:
    """The entries of the folder that a path belongs to; none where there is no such folder."""
    return sorted(path.parent.iterdir()) if path.parent.is_dir() else []
