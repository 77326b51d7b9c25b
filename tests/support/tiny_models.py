"""A few thousand random weights of every family, saved like a model of the hub."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tunelab.config.schema import PretrainedModelConfig
from tunelab.models.load_model import load_tokenizer

STARTER = PretrainedModelConfig(path="package:tunelab.starter/model")
SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
GROUPED = {**SIZE, "num_key_value_heads": 1}
WIDE = {**SIZE, "num_key_value_heads": 2, "head_dim": 16}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}
OPT = {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "word_embed_proj_dim": 32}
DECODERS: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "llama": GROUPED,
    "qwen3": WIDE,
    "qwen3 with a window": {**WIDE, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "mistral": {**SIZE, "num_key_value_heads": 2, "sliding_window": 4},
    "gpt_neox": SIZE,
    "opt": OPT,
    "gemma": WIDE,
    "gemma2": {**WIDE, "sliding_window": 4},
    "gemma3_text": {**WIDE, "sliding_window": 4},
    "cohere": {**SIZE, "num_key_value_heads": 2, "logit_scale": 0.25},
    "granite": {**GROUPED, "logits_scaling": 4.0, "attention_multiplier": 0.3, "residual_multiplier": 0.7},
}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": SIZE,
    "roberta": {**SIZE, "max_position_embeddings": 130, "pad_token_id": 0},
    "distilbert": {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 2},
    "modernbert": {**SIZE, "num_hidden_layers": 3, "local_attention": 8, "global_attn_every_n_layers": 2},
}


def saved(family: str, folder: Path, auto: Any, options: dict[str, Any]) -> Path:
    """A folder with a random model of a family and the starter's tokenizer."""
    tokenizer = load_tokenizer(STARTER)
    auto.from_config(config_of(family, options, len(tokenizer))).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder / "model"


def decoder(family: str, attention: str | None = None, **options: Any) -> PreTrainedModel:
    """A random decoder, spread out enough that whatever one token sees of another shows in the logits."""
    config = config_of(family, {**DECODERS.get(family, {}), **options}, 300)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation=attention
    )
    return model


def config_of(family: str, options: dict[str, Any], vocabulary: int) -> Any:
    """The architecture of a family, `family` up to the first blank."""
    torch.manual_seed(0)
    marks = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    marks |= {"cls_token_id": 1, "sep_token_id": 2} if family == "modernbert" else {}
    # weights ten times as far from 0 as usual: attention is then far from uniform
    spread = {"init_std": 0.2} if family == "opt" else {"initializer_range": 0.2}
    return AutoConfig.for_model(family.split(maxsplit=1)[0], vocab_size=vocabulary, **{**marks, **spread, **options})
