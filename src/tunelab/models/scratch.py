"""A network of your own size: an architecture that plain transformers knows, from depth, width and heads."""

from collections.abc import Mapping
from typing import Any

from transformers import GraniteConfig, LlamaConfig, PretrainedConfig, PreTrainedTokenizerBase, StableLmConfig

from tunelab.errors import ConfigError
from tunelab.models.model_faults import size_faults
from tunelab.optim.width_scaling import head_scale


def scratch_config(settings: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """The architecture of `model=scratch`.

    With `normalisation: rmsnorm` it is a Llama, with `layernorm` a StableLM (a Llama with layer norms), and with
    `mup: true` a Granite (a Llama with factors on attention scores and logits).

    Args:
        settings: `depth` layers of `width` hidden units with `heads` attention heads, `mlp` units in each feed-forward
            block (null: 8/3 of the width, rounded up to a multiple of 16) gated by `activation`, at most `context`
            tokens, `tied` input and output embeddings, `rope_base`, the longest wavelength of the rotary positions,
            and `initial_std`, the spread of the first weights (null: see `first_spread`).
        tokenizer: Fixes vocabulary and special tokens.

    Raises:
        ConfigError: Naming every size that does not fit.
    """
    if faults := size_faults(settings):
        raise ConfigError.listing(faults)
    width, heads = int(settings["width"]), int(settings["heads"])
    rotary: dict[str, Any] = {"rope_type": "default", "rope_theta": float(settings["rope_base"])}
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "num_hidden_layers": int(settings["depth"]),
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "intermediate_size": int(settings["mlp"] or -(-8 * width // 3 // 16) * 16),
        "hidden_act": str(settings.get("activation", "silu")),
        "max_position_embeddings": int(settings["context"]),
        "tie_word_embeddings": bool(settings["tied"]),
        "initializer_range": first_spread(settings),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if settings.get("mup"):
        return GraniteConfig(
            **shape,
            rope_parameters=rotary,
            attention_multiplier=head_scale(width // heads, int(settings["base_head"])),
            logits_scaling=width / int(settings["base_width"]),
        )
    if settings.get("normalisation", "rmsnorm") == "layernorm":
        # all of a head rotates, as in the other two, so that normalisation is the only difference
        return StableLmConfig(**shape, rope_parameters={**rotary, "partial_rotary_factor": 1.0})
    return LlamaConfig(**shape, rope_parameters=rotary)


def first_spread(settings: Mapping[str, Any]) -> float:
    """Standard deviation of the first embeddings, in every scheme, and of all matrices in the plain one.

    `initial_std`, or one over the root of the width; under `mup` of the base width, for embeddings must not shrink.
    """
    given = settings.get("initial_std")
    width = settings["base_width"] if settings.get("mup") else settings["width"]
    return float(int(width) ** -0.5 if given is None else given)
