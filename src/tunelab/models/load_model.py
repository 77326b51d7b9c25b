"""Network and tokenizer from the `model` block of the config."""

import logging
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tunelab.config.schema import (
    AdapterConfig,
    ModelConfig,
    PretrainedModelConfig,
    RegularizationConfig,
    ScratchModelConfig,
)
from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.models.adapters import AdaptedModel, attach_adapter
from tunelab.models.architecture import (
    adapter_beside_model_message,
    attention_faults_explained,
    load_architecture,
    pretrained_place,
    set_dropout,
)
from tunelab.models.base_head import Head, adopt_base_head
from tunelab.models.generation_flags import read_sound_flags, settle_generation_flags
from tunelab.models.heads import ensure_pad_token, input_embeddings
from tunelab.models.packing_support import is_bidirectional
from tunelab.models.pretrained_layers import reinitialize_top_layers, select_layers, truncate_config, truncate_model
from tunelab.models.scratch import initialize_layers
from tunelab.models.sharding import parameters_without_memory
from tunelab.models.vocabulary import vocabulary_size

AUTO_CLASSES = {"causal": AutoModelForCausalLM, "sequence": AutoModelForSequenceClassification}


def load_tokenizer(settings: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of the model, or the one `model.tokenizer` names.

    Raises:
        ConfigError: If there is none at that place.
    """
    source = settings.tokenizer or settings.path
    with pretrained_place("tokenizer", source) as place:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    return tokenizer


def seed_process(seed: int) -> None:
    """Seed every generator of random numbers of this process, as Lightning's `seed_everything` does."""
    os.environ["PL_GLOBAL_SEED"], os.environ["PL_SEED_WORKERS"] = str(seed), "0"  # read by Lightning
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def load_adapted_model(
    settings: ModelConfig,
    adapter: AdapterConfig,
    regularization: RegularizationConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    head: str,
    options: Mapping[str, Any],
    seed: int,
    without_values: bool = False,
) -> AdaptedModel:
    """The model as it is before training, and what trains in it; the same weights at every call.

    Args:
        settings: The `model` block.
        adapter: The `adapter` block.
        regularization: Its dropout rates are those of the network.
        tokenizer: Gets a padding token where a head of sequences needs one.
        head: "causal" or "sequence".
        options: What the task requires of the head.
        seed: Of new weights.
        without_values: Whether weights are shapes only, to be read once they are spread over processes.
    """
    seed_process(seed)  # before the model: a new head starts from random weights
    notes = list[str]()
    model = load_model(
        settings,
        tokenizer,
        head=head,
        options=options,
        dropout=regularization.dropout,
        attention_dropout=regularization.attention_dropout,
        four_bit=adapter.kind == "qlora",
        notes=notes,
        without_values=without_values,
    )
    known = load_architecture(settings, tokenizer).get_text_config().vocab_size
    new_tokens = range(known, input_embeddings(model).shape[0])
    if head == "sequence":
        ensure_pad_token(tokenizer, model)
    adapted = attach_adapter(model, adapter, new_tokens=new_tokens)
    adapted.notes = notes
    model.train()  # transformers hands models over with dropout switched off
    return adapted


def load_model(
    settings: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    head: str,
    options: Mapping[str, Any],
    dropout: float | None = None,
    attention_dropout: float | None = None,
    four_bit: bool = False,
    notes: list[str] | None = None,
    without_values: bool = False,
) -> PreTrainedModel:
    """The network in float32, whatever type its file has: low-precision masters lose small updates.

    Args:
        settings: The `model` block.
        tokenizer: Fixes the vocabulary of a model made from scratch.
        head: "causal" or "sequence".
        options: What the task requires of the head (number of labels and their names).
        dropout: Replaces every dropout rate of the architecture; None keeps them.
        attention_dropout: Replaces those on attention weights; None leaves them to `dropout`.
        four_bit: Whether the linear layers stay packed, 4 bits a weight, on the GPU (QLoRA).
        notes: Receives what the user should know of the way it was loaded.
        without_values: Whether its weights are shapes only.

    Raises:
        ConfigError: If the weights cannot be loaded, or the architecture has no dropout to set.
    """
    # cuDNN plans its attention anew for each shape, and rows of text hardly repeat one: measured 29 times slower on
    # packed documents and 1.3 times on padded rows than the kernels PyTorch brings
    torch.backends.cuda.enable_cudnn_sdp(False)
    notes = [] if notes is None else notes
    config = load_architecture(settings, tokenizer)
    base = Head.from_config(config)
    for name, value in options.items():
        setattr(config, name, value)
    set_dropout(config, dropout, attention_dropout)
    attention = None if settings.attention == "auto" else settings.attention
    auto, source = AUTO_CLASSES[head], settings.path
    kept, flags = layers_to_keep(config, settings), None
    with pretrained_place("model", source) as place, attention_faults_explained(attention, config.model_type):
        if isinstance(settings, ScratchModelConfig):
            model = auto.from_config(config, dtype=torch.float32, attn_implementation=attention)
            initialize_layers(model, settings)
        elif isinstance(settings, PretrainedModelConfig) and settings.weights == "random":
            small = truncate_config(config, kept) if kept else config
            model = auto.from_config(small, dtype=torch.float32, attn_implementation=attention)
        elif without_values:
            with parameters_without_memory():
                model = auto.from_config(config, dtype=torch.float32, attn_implementation=attention)
            if isinstance(place, Path) and (generation := read_sound_flags(place / "generation_config.json")[0]):
                model.generation_config = generation
        else:
            if "id2label" in options and base.rows_for(Head.from_config(config)) is not None:
                config.num_labels = len(base.labels)  # with all rows of the base, of which some or all are taken below
            if head == "causal" and isinstance(place, Path):
                flags, note = read_sound_flags(place / "generation_config.json")
                notes += [note] if note else []
            model, absent = load_weights(auto, place, config, attention, head, four_bit=four_bit, generation=flags)
            if "id2label" in options and (note := adopt_base_head(model, base, options, absent=absent)):
                notes.append(note)
            model = truncate_model(model, auto, kept) if kept else model
            if isinstance(settings, PretrainedModelConfig) and settings.reinit_top:
                reinitialize_top_layers(model, settings.reinit_top)
    if head == "causal" and is_bidirectional(small_likeness(model) if without_values else model):
        raise ConfigError(
            translate(
                "model.path={source}: {model_type} looks both ways, so it would see each token that "
                "it is to predict and learn nothing; pick a decoder (GPT-like), or "
                "data=classification or regression",
                source=source,
                model_type=config.model_type,
            )
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if vocabulary_size(tokenizer) > rows and without_values:
        raise ConfigError(
            translate(
                "trainer.fsdp.load=slices: the tokenizer has {tokenizer} tokens, the model {rows}, "
                "and new ones are made in a whole model only; take trainer.fsdp.load=whole",
                tokenizer=vocabulary_size(tokenizer),
                rows=rows,
            )
        )
    if vocabulary_size(tokenizer) > rows:
        model.resize_token_embeddings(vocabulary_size(tokenizer), mean_resizing=False)
    if model.can_generate() and (note := settle_generation_flags(model)):
        notes.append(note)
    network: PreTrainedModel = model
    return network


def small_likeness(model: PreTrainedModel) -> PreTrainedModel:
    """A model of the same architecture with two layers at most and random weights, for what a model without values
    cannot be tried on.
    """
    layers = model.config.get_text_config().num_hidden_layers
    small = truncate_config(model.config, range(min(2, layers)))
    with torch.random.fork_rng(devices=[]):
        likeness: PreTrainedModel = type(model)._from_config(
            small, dtype=torch.float32, attn_implementation=model.config._attn_implementation
        )
    return likeness


def layers_to_keep(config: PretrainedConfig, settings: ModelConfig) -> list[int]:
    """The layers of a pretrained model that stay; none are named where all do."""
    if not isinstance(settings, PretrainedModelConfig) or settings.depth is None:
        return []
    total = config.get_text_config().num_hidden_layers
    return select_layers(total, settings.depth, settings.keep or "bottom")


def load_weights(
    auto: Any,
    source: Any,
    config: PretrainedConfig,
    attention: str | None,
    head: str,
    *,
    four_bit: bool = False,
    generation: GenerationConfig | None = None,
) -> tuple[PreTrainedModel, dict[str, bool]]:
    """The weights of a folder or hub id, and the weights of the head that it lacks.

    Returns:
        The model, and the names of the weights that it did not take from there, which are new: whether the base has
        one of that name and another shape.

    Raises:
        ConfigError: If the body of the network is not all there: such a model would train, and never be good.
    """
    reports = logging.getLogger("transformers.modeling_utils")
    level = reports.level
    reports.setLevel(logging.ERROR)  # what it would report is checked below
    try:
        model, loading_info = auto.from_pretrained(
            source,
            config=config,
            dtype=torch.float32,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # checked below: only a head may be of another size
            output_loading_info=True,
            **(four_bit_options() if four_bit else {}),
            **({} if generation is None else {"generation_config": generation}),
        )
    finally:
        reports.setLevel(level)
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ConfigError(adapter_beside_model_message(str(source)))
    body = f"{model.base_model_prefix}."
    odd = [fault for fault in loading_info["mismatched_keys"] if fault[0].startswith(body) or head == "causal"]
    if odd:
        name, there, expected = min(odd)
        raise ConfigError(
            translate(
                "{source}: {count} [weight has|weights have] another shape than config.json says, such as {name}: "
                "{there} instead of {expected}; they would start at random. Check that config.json "
                "belongs to model.safetensors",
                source=source,
                count=len(odd),
                name=name,
                there=tuple(there),
                expected=tuple(expected),
            )
        )
    # sentence encoders come without the pooler that labels are read from
    lost = [
        key
        for key in loading_info["missing_keys"]
        if (key.startswith(body) or head == "causal") and "pooler" not in key
    ]
    if lost and not any(key.startswith(body) for key in lost):
        raise ConfigError(
            translate(
                "{source} is a {model_type} model without a head that predicts tokens, so it cannot "
                "learn to answer; pick a decoder (GPT-like), or data=classification or regression",
                source=source,
                model_type=config.model_type,
            )
        )
    if lost:
        raise ConfigError(
            translate(
                "{source} lacks {count} [weight|weights] of a {model_type} model, such as {lost}; they would "
                "start at random. Check that config.json belongs to model.safetensors",
                source=source,
                count=len(lost),
                model_type=config.model_type,
                lost=sorted(lost)[0],
            )
        )
    absent = dict.fromkeys(loading_info["missing_keys"], False)
    return model, absent | {name: True for name, *_ in loading_info["mismatched_keys"]}


def four_bit_options() -> dict[str, Any]:
    """Arguments that load linear layers in 4 bit, as QLoRA does: NF4, constants packed too, computed in bfloat16."""
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": config, "device_map": {"": torch.cuda.current_device()}}
