"""Adapters: which part of a model is trained, and how; everything, some of it, or small new weights beside it
(PEFT).
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tunelab.config.schema import LOW_RANK_KINDS, AdapterConfig
from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.models.freezing import freeze_parameters, parameter_depths, train_only
from tunelab.models.soft_prompt import add_soft_prompt


@dataclass
class AdaptedModel:
    """A model and what trains in it.

    Attributes:
        model: The transformers model; low-rank layers are inside it.
        wrapper: PEFT's view of it, where PEFT added anything.
        kind: As `adapter.kind`.
        notes: What the user should know of the way the model was loaded.
    """

    model: PreTrainedModel
    kind: str
    wrapper: Any = None
    notes: list[str] = field(default_factory=list)


def check_adapter_requirements(settings: AdapterConfig, task: str) -> None:
    """Stop a run whose adapter cannot work here or for this task, before data and weights are read.

    Raises:
        ConfigError: Naming what is missing.
    """
    kind = settings.kind
    if kind == "qlora":
        lacking = [
            *([] if find_spec("bitsandbytes") else [translate("the package bitsandbytes (pip install bitsandbytes)")]),
            *([] if torch.cuda.is_available() else [translate("a CUDA GPU, which this machine does not have")]),
        ]
        if lacking:
            raise ConfigError(
                translate(
                    "adapter=qlora keeps the base in 4 bit and needs {names}; adapter=lora trains the "
                    "same weights over an unpacked base, anywhere",
                    names=translate(" and ").join(lacking),
                )
            )
    if kind == "prompt" and task != "instruction":
        raise ConfigError(
            translate(
                "adapter=prompt works for instructions only, and the task is {task}, where a prompt "
                "would move the places that are compared or read off; take adapter=lora",
                task=task,
            )
        )


def attach_adapter(model: PreTrainedModel, settings: AdapterConfig, *, new_tokens: Sequence[int] = ()) -> AdaptedModel:
    """Set up what trains; new weights are drawn from torch's generator, so seed it before.

    Args:
        model: A transformers model as it was loaded; changed in place.
        settings: The `adapter` block.
        new_tokens: Ids that the base model has no embedding of; they learn under every kind.

    Raises:
        ConfigError: If the model has no such parts, or nothing is left to train.
    """
    kind = settings.kind
    adapted = AdaptedModel(model, kind)
    if kind in LOW_RANK_KINDS:
        adapted.wrapper = add_low_rank(model, settings, new_tokens)
    elif kind == "layernorm":
        adapted.wrapper = add_norm_tuning(model)
    elif kind == "prompt":
        add_soft_prompt(model, settings.length)
    elif kind == "head":
        head = head_parameter_names(model)
        train_only(model, lambda name: name in head)
    elif kind == "top_layers":
        train_top_layers(model, settings.layers)
    if new_tokens and kind in ("layernorm", "head", "top_layers"):
        for table in embedding_tables(model).values():
            table.requires_grad_(True)
    elif new_tokens and kind == "prompt":
        raise ConfigError(
            translate(
                "adapter=prompt trains no embeddings, and the tokenizer has {count} [token|tokens] that the "
                "model has never seen; take adapter=lora",
                count=len(new_tokens),
            )
        )
    freeze_parameters(model, settings.freeze)
    if (
        new_tokens
        and kind not in LOW_RANK_KINDS
        and not all(table.requires_grad for table in embedding_tables(model).values())
    ):
        raise ConfigError(
            translate(
                "the tokenizer has {count} [token|tokens] that the model has never seen, and adapter.freeze "
                "keeps their embeddings from learning; set adapter.freeze=[]",
                count=len(new_tokens),
            )
        )
    return adapted


def add_low_rank(model: PreTrainedModel, settings: AdapterConfig, new_tokens: Sequence[int]) -> Any:
    """Put low-rank layers beside the linear ones (Hu et al. 2021, with DoRA and rank-stabilised scaling)."""
    from peft import LoraConfig  # here: its import takes a second

    kind = settings.kind
    named = embedding_tables(model)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # a float serves as well
        lora_dropout=float(settings.dropout),
        target_modules=resolve_lora_targets(model, settings.targets),
        exclude_modules=head_module_names(model) or None,
        modules_to_save=head_module_names(model) or None,
        trainable_token_indices={name: list(new_tokens) for name in named} if new_tokens else None,
        use_dora=kind == "dora",
        use_rslora=kind == "rslora",
        fan_in_fan_out=model.config.model_type == "gpt2",
        task_type="CAUSAL_LM" if model.can_generate() else "SEQ_CLS",
    )
    return wrap_with_peft(model, config)


def add_norm_tuning(model: PreTrainedModel) -> Any:
    """Train the gains (and biases) of the normalisation layers, and a new head with them."""
    from peft import LNTuningConfig

    config = LNTuningConfig(
        target_modules=norm_layer_names(model),
        modules_to_save=head_module_names(model) or None,
        task_type="CAUSAL_LM" if model.can_generate() else "SEQ_CLS",
    )
    return wrap_with_peft(model, config)


def wrap_with_peft(model: PreTrainedModel, config: Any) -> Any:
    """Let PEFT add its layers to a model, in place."""
    from peft import get_peft_model

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unsupported layer type")  # PEFT knows no norm by name, and copies any
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")  # between PEFT and transformers
        return get_peft_model(model, config)


def embedding_tables(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """The embedding of tokens, and the output head where it is not the same matrix, by module name."""
    tables: dict[str, Any] = {}
    embeddings = [model.get_input_embeddings(), model.get_output_embeddings() if model.can_generate() else None]
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if any(module is one for one in embeddings) and not any(weight is known for known in tables.values()):
            tables[name] = weight
    return {name: weight for name, weight in tables.items() if isinstance(weight, nn.Parameter)}


def head_parameter_names(model: PreTrainedModel) -> set[str]:
    """Names of the parameters of the head: new for labels and numbers, the output matrix of a language model."""
    if not model.can_generate():
        depths = parameter_depths(model)
        return {name for name, depth in depths.by_name.items() if depth == depths.head_depth}
    head = model.get_output_embeddings()
    ours = {id(weight) for weight in head.parameters()} if isinstance(head, nn.Module) else set()
    return {name for name, weight in model.named_parameters() if id(weight) in ours}


def train_top_layers(model: PreTrainedModel, count: int) -> None:
    """Train the highest `count` layers and all that stands above them.

    Raises:
        ConfigError: If there are fewer layers, or none can be told apart.
    """
    depths = parameter_depths(model)
    if not 0 < count <= depths.layers:
        raise ConfigError(
            translate(
                "adapter.layers={count}: this {model_type} model has {layers} [layer|layers]",
                count=count,
                model_type=model.config.model_type,
                layers=depths.layers,
            )
        )
    train_only(model, lambda name: depths.by_name[name] > depths.layers - count)


def is_partial_checkpoint(model: PreTrainedModel, kind: str) -> bool:
    """Whether a checkpoint holds the trained weights only."""
    return kind != "full" and any(not weight.requires_grad for weight in model.parameters())


LLAMA_LIKE = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BERT_LIKE = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")
TARGETS: Mapping[str, Sequence[str]] = {
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "gpt_neox": ("query_key_value", "attention.dense", "dense_h_to_4h", "dense_4h_to_h"),
    "opt": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "smollm3", "olmo2", "granite", "cohere"), LLAMA_LIKE),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), LLAMA_LIKE),
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), BERT_LIKE),
    "distilbert": ("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"),
    "modernbert": ("Wqkv", "Wo", "Wi"),
}


def resolve_lora_targets(model: PreTrainedModel, targets: str | Sequence[str]) -> list[str]:
    """The suffixes to adapt: the configured ones, or those of the model's family.

    Args:
        model: A transformers model without adapters.
        targets: "auto", one suffix, or several.

    Raises:
        ConfigError: If the family is unknown, or a suffix meets no linear layer of the body.
    """
    linear = linear_layer_names(model)
    there = ", ".join(dict.fromkeys(last_name_part(name) for name in linear))
    family = model.config.get_text_config().model_type
    if targets == "auto":
        if family not in TARGETS:
            raise ConfigError(
                translate(
                    "adapter.targets=auto: the layers of a {family} model are not known by name. Name "
                    "them by the ends of their names, as adapter.targets=[...]; its linear layers are "
                    "{there}",
                    family=family,
                    there=there,
                )
            )
        return list(TARGETS[family])
    suffixes = [targets] if isinstance(targets, str) else list(targets)
    lost = [suffix for suffix in suffixes if not any(matches_suffix(name, suffix) for name in linear)]
    if lost or not suffixes:
        raise ConfigError(
            translate(
                "adapter.targets={value}: no linear layer below the head ends like that; choose from {there}",
                value=lost or suffixes,
                there=there,
            )
        )
    return suffixes


def linear_layer_names(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers of the body; the head and a pooler are trained in full, never adapted."""
    kept = set(head_module_names(model))
    body = f"{model.base_model_prefix}."
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and name.startswith(body)
        and not any(name == other or name.startswith(f"{other}.") for other in kept)
    ]


def norm_layer_names(model: PreTrainedModel) -> list[str]:
    """Full names of the normalisation layers of the body."""
    body = f"{model.base_model_prefix}."
    kept = [f"{name}." for name in head_module_names(model)]
    return [
        name
        for name, module in model.named_modules()
        if name.startswith(body)
        and not any(name.startswith(other) for other in kept)
        and "norm" in type(module).__name__.lower()
        and any(isinstance(weight, nn.Parameter) for weight in module.parameters(recurse=False))
    ]


def head_module_names(model: PreTrainedModel) -> list[str]:
    """Full names of the modules that turn hidden states into labels or numbers; none for a language model.

    All that stands outside the body, and the pooler that sentence encoders come without.
    """
    if model.can_generate():
        return []
    outside = [
        name for name, module in model.named_children() if name != model.base_model_prefix and has_parameters(module)
    ]
    inside = [
        name for name, module in model.named_modules() if last_name_part(name) == "pooler" and has_parameters(module)
    ]
    return inside + outside


def has_parameters(module: nn.Module) -> bool:
    """Whether there is anything to train."""
    return next(module.parameters(), None) is not None


def last_name_part(name: str) -> str:
    """The last part of a dotted name."""
    return name.rpartition(".")[2]


def matches_suffix(name: str, suffix: str) -> bool:
    """Whether a module's name ends in whole words like this."""
    return name == suffix or name.endswith(f".{suffix}")


@contextmanager
def adapter_disabled(model: PreTrainedModel) -> Iterator[None]:
    """Within this block every layer that PEFT put into the model gives what the base gives."""
    layers: list[Any] = [layer for layer in model.modules() if type(layer).__module__.startswith("peft.")]
    layers = [layer for layer in layers if hasattr(layer, "enable_adapters")]
    learns = [(weight, weight.requires_grad) for weight in model.parameters()]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for weight, before in learns:  # PEFT switches on all it switched off, frozen weights too
            weight.requires_grad_(before)
