"""Which part of a model is trained, and how: everything, some of it, or small new weights beside it (PEFT)."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from tunelab.errors import ConfigError
from tunelab.models.freeze import depths, freeze, train_only
from tunelab.models.lora_targets import head_modules, low_rank_targets, norm_layers
from tunelab.models.soft_prompt import add_soft_prompt

LOW_RANK = ("lora", "dora", "rslora", "qlora")


@dataclass
class Adapter:
    """A model and what trains in it.

    Attributes:
        model: The transformers model; low-rank layers are inside it.
        wrapper: PEFT's view of it, where PEFT added anything.
        kind: As `adapter.kind`.
    """

    model: PreTrainedModel
    kind: str
    wrapper: Any = None


def refuse_early(settings: Mapping[str, Any], task: str) -> None:
    """Stop a run whose adapter cannot work here or for this task, before data and weights are read.

    Raises:
        ConfigError: Naming what is missing.
    """
    kind = settings["kind"]
    if kind == "qlora":
        lacking = [
            *([] if find_spec("bitsandbytes") else ["the package bitsandbytes (pip install bitsandbytes)"]),
            *([] if torch.cuda.is_available() else ["a CUDA GPU, which this machine does not have"]),
        ]
        if lacking:
            raise ConfigError(
                f"adapter=qlora keeps the base in 4 bit and needs {' and '.join(lacking)}; adapter=lora trains the "
                "same weights over an unpacked base, anywhere"
            )
    if kind == "prompt" and task != "instruction":
        raise ConfigError(
            f"adapter=prompt works for instructions only, and the task is {task}, where a prompt would move the places "
            "that are compared or read off; take adapter=lora"
        )


def attach(model: PreTrainedModel, settings: Mapping[str, Any], *, new_tokens: Sequence[int] = ()) -> Adapter:
    """Set up what trains; new weights are drawn from torch's generator, so seed it before.

    Args:
        model: A transformers model as it was loaded; changed in place.
        settings: The `adapter` block.
        new_tokens: Ids that the base model has no embedding of; they learn under every kind.

    Raises:
        ConfigError: If the model has no such parts, or nothing is left to train.
    """
    kind = str(settings["kind"])
    found = Adapter(model, kind)
    if kind in LOW_RANK:
        found.wrapper = low_rank(model, settings, new_tokens)
    elif kind == "layernorm":
        found.wrapper = norm_tuning(model)
    elif kind == "prompt":
        add_soft_prompt(model, int(settings["length"]))
    elif kind == "head":
        head = trained_head(model)
        train_only(model, lambda name: name in head)
    elif kind == "top_layers":
        top_layers(model, int(settings["layers"]))
    if new_tokens and kind in ("layernorm", "head", "top_layers"):
        for table in tables(model).values():
            table.requires_grad_(True)
    elif new_tokens and kind == "prompt":
        raise ConfigError(
            f"adapter=prompt trains no embeddings, and the tokenizer has {len(new_tokens)} tokens that the model has "
            "never seen; take adapter=lora"
        )
    freeze(model, settings["freeze"])
    if new_tokens and kind not in LOW_RANK and not all(table.requires_grad for table in tables(model).values()):
        raise ConfigError(
            f"the tokenizer has {len(new_tokens)} tokens that the model has never seen, and adapter.freeze keeps their "
            "embeddings from learning; set adapter.freeze=[]"
        )
    return found


def low_rank(model: PreTrainedModel, settings: Mapping[str, Any], new_tokens: Sequence[int]) -> Any:
    """Put low-rank layers beside the linear ones (Hu et al. 2021, with DoRA and rank-stabilised scaling)."""
    from peft import LoraConfig  # here: its import takes a second

    kind = settings["kind"]
    named = tables(model)
    config = LoraConfig(
        r=int(settings["rank"]),
        lora_alpha=settings["alpha"],
        lora_dropout=float(settings["dropout"]),
        target_modules=low_rank_targets(model, settings["targets"]),
        exclude_modules=head_modules(model) or None,
        modules_to_save=head_modules(model) or None,
        trainable_token_indices={name: list(new_tokens) for name in named} if new_tokens else None,
        use_dora=kind == "dora",
        use_rslora=kind == "rslora",
        fan_in_fan_out=model.config.model_type == "gpt2",
        task_type="CAUSAL_LM" if model.can_generate() else "SEQ_CLS",
    )
    return wrapped(model, config)


def norm_tuning(model: PreTrainedModel) -> Any:
    """Train the gains (and biases) of the normalisation layers, and a new head with them."""
    from peft import LNTuningConfig

    config = LNTuningConfig(
        target_modules=norm_layers(model),
        modules_to_save=head_modules(model) or None,
        task_type="CAUSAL_LM" if model.can_generate() else "SEQ_CLS",
    )
    return wrapped(model, config)


def wrapped(model: PreTrainedModel, config: Any) -> Any:
    """Let PEFT add its layers to a model, in place."""
    from peft import get_peft_model

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unsupported layer type")  # PEFT knows no norm by name, and copies any
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")  # between PEFT and transformers
        return get_peft_model(model, config)


def tables(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """The embedding of tokens, and the output head where it is not the same matrix, by module name."""
    found: dict[str, Any] = {}
    wanted = [model.get_input_embeddings(), model.get_output_embeddings() if model.can_generate() else None]
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if any(module is one for one in wanted) and not any(weight is known for known in found.values()):
            found[name] = weight
    return {name: weight for name, weight in found.items() if isinstance(weight, nn.Parameter)}


def trained_head(model: PreTrainedModel) -> set[str]:
    """Names of the parameters of the head: new for labels and numbers, the output matrix of a language model."""
    if not model.can_generate():
        high = depths(model)
        return {name for name, depth in high.of.items() if depth == high.head}
    head = model.get_output_embeddings()
    ours = {id(weight) for weight in head.parameters()} if isinstance(head, nn.Module) else set()
    return {name for name, weight in model.named_parameters() if id(weight) in ours}


def top_layers(model: PreTrainedModel, count: int) -> None:
    """Train the highest `count` layers and all that stands above them.

    Raises:
        ConfigError: If there are fewer layers, or none can be told apart.
    """
    high = depths(model)
    if not 0 < count <= high.layers:
        raise ConfigError(f"adapter.layers={count}: this {model.config.model_type} model has {high.layers} layers")
    train_only(model, lambda name: high.of[name] > high.layers - count)


def is_partial(model: PreTrainedModel, kind: str) -> bool:
    """Whether a checkpoint holds the trained weights only."""
    return kind != "full" and any(not weight.requires_grad for weight in model.parameters())
