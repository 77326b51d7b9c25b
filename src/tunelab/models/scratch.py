"""A small Llama-style network from depth, width and heads."""

from collections.abc import Mapping
from typing import Any

from transformers import LlamaConfig, PretrainedConfig, PreTrainedTokenizerBase

from tunelab.errors import ConfigError


def scratch_config(settings: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """The architecture of `model=scratch`.

    Args:
        settings: `depth` layers of `width` hidden units with `heads` attention heads, `mlp` units in each feed-forward
            block (null: 8/3 of the width, rounded up to a multiple of 16), at most `context` tokens, `tied` input and
            output embeddings, `rope_base`, the longest wavelength of the rotary positions, and `initial_std`, the
            spread of the first weights (null: one over the root of the width).
        tokenizer: Fixes vocabulary and special tokens.

    Raises:
        ConfigError: Naming every size that does not fit.
    """
    depth, width, heads = int(settings["depth"]), int(settings["width"]), int(settings["heads"])
    faults = [
        f"model.{name}={settings[name]} must be at least 1"
        for name in ("depth", "width", "heads", "context")
        if int(settings[name]) < 1
    ]
    if not faults and width % (2 * heads):
        near = 2 * heads * max(1, round(width / (2 * heads)))
        faults.append(
            f"model.width={width} must be a multiple of twice model.heads={heads} (each head rotates pairs of units); "
            f"try model.width={near}"
        )
    if faults:
        raise ConfigError.listing(faults)
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=int(settings["mlp"] or -(-8 * width // 3 // 16) * 16),
        max_position_embeddings=int(settings["context"]),
        tie_word_embeddings=bool(settings["tied"]),
        initializer_range=float(settings["initial_std"] or width**-0.5),
        rope_parameters={"rope_type": "default", "rope_theta": float(settings["rope_base"])},
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
