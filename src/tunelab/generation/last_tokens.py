"""The last layer reads prompts for their last tokens: of the others it need not compute what follows its attention.

Shape letters: B rows, T tokens, H hidden size, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from tunelab.models.freezing import layer_stack

PROBE_TOKENS = 5  # of the row on which the change is tried
TOLERANCE = 1e-4  # of the largest logit


@contextmanager
def last_tokens_only(model: PreTrainedModel) -> Iterator[None]:
    """Within this block the last layer computes behind its attention the last token of each row alone, on a processor.

    Keys and values lie before it, and the sum with what passes by it is right for the last token.  Models with another
    last layer, or whose last logits would move, stay as they are.
    """
    members: Sequence[Any] = getattr(model, "models", [model]) if model.device.type == "cpu" else ()  # of a mixture
    hooks = [hook for member in members if (hook := narrow_last_layer(member)) is not None]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def narrow_last_layer(model: PreTrainedModel) -> RemovableHandle | None:
    """The hook that hands on the last tokens alone; None where a model has no such place, or is changed by it."""
    name, _ = layer_stack(model)
    layers: Any = model.get_submodule(name) if name else [None]
    part = getattr(layers[-1], "mlp", None)
    if not isinstance(part, nn.Module):
        return None
    before = last_logits(model)
    hook = part.register_forward_pre_hook(select_last_token)
    try:
        after = last_logits(model)
    except Exception:  # a part with shapes of its own
        after = torch.full_like(before, torch.nan)
    if (after - before).abs().max() <= TOLERANCE * before.abs().max():
        return hook
    hook.remove()
    return None


def select_last_token(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The first argument (B, T, H) as (B, 1, H), the others as they are."""
    return (args[0][:, -1:], *args[1:])


def last_logits(model: PreTrainedModel) -> Tensor:
    """The logits (1, V) behind a short row."""
    ids = torch.arange(PROBE_TOKENS, device=model.device)[None] % model.config.get_text_config().vocab_size
    logits: Tensor = model(input_ids=ids, use_cache=False).logits[:, -1].float()
    return logits
