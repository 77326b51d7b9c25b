"""A network trained from scratch: its architecture from depth, width and heads, and the initialization of its
layers.
"""

from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    GraniteConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StableLmConfig,
)

from tunelab.config.cross_checks import scratch_size_faults
from tunelab.config.schema import ScratchModelConfig
from tunelab.errors import ConfigError
from tunelab.models.freezing import parameter_depths
from tunelab.models.mup import hidden_matrices, mup_attention_scale, mup_hidden_std
from tunelab.models.vocabulary import vocabulary_size


def scratch_config(settings: ScratchModelConfig, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """The architecture of `model=scratch`.

    With `normalisation: rmsnorm` it is a Llama, with `layernorm` a StableLM (a Llama with layer norms), and with
    `mup: true` a Granite (a Llama with factors on attention scores and logits).

    Args:
        settings: `depth` layers of `width` hidden units with `heads` attention heads, `mlp` units in each feed-forward
            block (null: 8/3 of the width, rounded up to a multiple of 16) gated by `activation`, at most `context`
            tokens, `tied` input and output embeddings, `rope_base`, the longest wavelength of the rotary positions,
            and `initial_std`, the spread of the first weights (null: see `embedding_init_std`).
        tokenizer: Fixes vocabulary and special tokens.

    Raises:
        ConfigError: Naming every size that does not fit.
    """
    if faults := scratch_size_faults(settings):
        raise ConfigError.listing(faults)
    width, heads = settings.width, settings.heads
    rotary: dict[str, Any] = {"rope_type": "default", "rope_theta": float(settings.rope_base)}
    shape: dict[str, Any] = {
        "vocab_size": vocabulary_size(tokenizer),
        "hidden_size": width,
        "num_hidden_layers": settings.depth,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "intermediate_size": settings.mlp or (-(-8 * width // 3 // 16) * 16),
        "hidden_act": settings.activation,
        "max_position_embeddings": settings.context,
        "tie_word_embeddings": settings.tied,
        "initializer_range": embedding_init_std(settings),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if settings.mup:
        return GraniteConfig(
            **shape,
            rope_parameters=rotary,
            attention_multiplier=mup_attention_scale(width // heads, settings.base_head),
            logits_scaling=width / settings.base_width,
        )
    if settings.normalisation == "layernorm":
        # all of a head rotates, as in the other two, so that normalisation is the only difference
        return StableLmConfig(**shape, rope_parameters={**rotary, "partial_rotary_factor": 1.0})
    return LlamaConfig(**shape, rope_parameters=rotary)


def embedding_init_std(settings: ScratchModelConfig) -> float:
    """Standard deviation of the first embeddings, in every scheme, and of all matrices in the plain one.

    `initial_std`, or one over the root of the width; under `mup` of the base width, for embeddings must not shrink.
    """
    width = settings.base_width if settings.mup else settings.width
    return float(width**-0.5 if settings.initial_std is None else settings.initial_std)


RESIDUAL_OUTPUTS = ("o_proj.weight", "down_proj.weight")  # their products are added to the residual stream


@torch.no_grad()
def initialize_layers(model: PreTrainedModel, settings: ScratchModelConfig) -> None:
    """Draw the matrices of all layers by `model.init`, from torch's generator, so seed it before.

    `normal`: one spread for all.  `xavier`: variance 2 / (inputs + outputs) (Glorot and Bengio 2010).  `kaiming`:
    variance 2 / inputs (He et al. 2015).  `depth_scaled`: as `normal`, and what adds to the residual stream is divided
    by the root of twice the depth, the number of additions (Radford et al. 2019, GPT-2).

    Args:
        model: As transformers drew it; changed in place.
        settings: The `model` block of `model=scratch`.
    """
    scheme = settings.init
    if scheme == "normal" and not settings.mup:
        return  # the architecture's own rule does just that
    depths, named = parameter_depths(model), dict(model.named_parameters())
    names = {id(weight): name for name, weight in named.items()}
    for weight in hidden_matrices(named, depths.by_name, depths.layers):
        if scheme == "xavier":
            nn.init.xavier_normal_(weight)
        elif scheme == "kaiming":
            nn.init.kaiming_normal_(weight, nonlinearity="relu")
        else:
            adds = scheme == "depth_scaled" and names[id(weight)].endswith(RESIDUAL_OUTPUTS)
            fill_normal(weight, hidden_init_std(settings) / (sqrt(2 * depths.layers) if adds else 1))


def hidden_init_std(settings: ScratchModelConfig) -> float:
    """Spread of hidden matrices where neither inputs nor outputs are counted."""
    std = embedding_init_std(settings)
    return mup_hidden_std(std, settings.width, settings.base_width) if settings.mup else std


def fill_normal(weight: Tensor, std: float) -> None:
    """Fill a matrix with normal numbers around 0."""
    nn.init.normal_(weight, 0.0, std)
