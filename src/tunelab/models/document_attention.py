"""Flat rows: documents laid end to end, attention inside each document only.

Shape letters: T tokens.  On a processor without variable-length kernels this is the fastest exact layout: no pads,
and no quadratic mask over the whole row.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from tunelab.data.batching import lay_flat
from tunelab.data.examples import IGNORE, Example, Micro

NAME = "documents"  # as registered with transformers


def document_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **other: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each document of a flat row.

    Args:
        module: The attention layer (unused; part of the interface of transformers).
        query: (1, heads, T, dimension).
        key: (1, key heads, T, dimension).
        value: As `key`.
        attention_mask: Always None: causality and the bounds say everything.
        dropout: Probability of dropping an attention weight.
        scaling: Factor on the scores; None means one over the root of the dimension.
        sliding_window: Tokens a position can look back, itself included.
        cu_seq_lens_q: Where each document starts, (documents + 1,).
        **other: Whatever else a model hands over; score caps and sinks are refused.

    Returns:
        The mixed values, (1, T, heads, dimension), and no weights.

    Raises:
        ValueError: If the model needs more than plain scaled dot products.
    """
    if other.get("softcap") is not None or other.get("s_aux") is not None:
        raise ValueError("this model caps its attention scores or has sinks: use padded rows")
    lengths = [query.shape[2]] if cu_seq_lens_q is None else cu_seq_lens_q.diff().tolist()
    grouped = key.shape[1] != query.shape[1]
    parts = []
    for n, q, k, v in zip(
        lengths, query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True
    ):
        near = None  # causal is enough, unless the document is longer than the model's window
        if sliding_window is not None and n > sliding_window:
            near = torch.ones(n, n, dtype=torch.bool, device=q.device).tril().triu(1 - sliding_window)
        parts.append(
            functional.scaled_dot_product_attention(
                q, k, v, near, dropout, near is None, scale=scaling, enable_gqa=grouped
            )
        )
    return torch.cat(parts, 2).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, document_attention)
AttentionMaskInterface.register(NAME, lambda *_, **__: None)


def causal_inputs(micro: Micro) -> dict[str, Any]:
    """Keyword arguments of a causal model.  No attention mask: pads are on the right, where no real token looks,
    and an all-ones mask would make transformers forget the document bounds.
    """
    flat = {} if micro.bounds is None else {"position_ids": micro.positions, "cu_seq_lens_q": micro.bounds}
    return {"input_ids": micro.ids, "use_cache": False, **flat}


@torch.no_grad()
def agree(model: PreTrainedModel, one: Callable[[], Tensor], other: Callable[[], Tensor]) -> bool:
    """Whether two ways to the same logits agree on this very model; an error of the second counts as no."""
    training = model.training
    model.eval()
    try:
        left, right = one(), other()
        return left.shape == right.shape and torch.allclose(left, right, rtol=1e-4, atol=1e-4)
    except (RuntimeError, IndexError, TypeError, ValueError, AttributeError):
        return False
    finally:
        model.train(training)


def use_documents(model: PreTrainedModel) -> bool:
    """Switch the model to document attention if flat rows then give the logits of their documents alone.

    The probe runs on the very model, because no list of families stays complete: sliding windows, recurrent
    layers, alibi and capped scores all break silently.

    Returns:
        Whether the model now takes flat rows; if not, it is left as it was.
    """
    before = model.config._attn_implementation
    probe = [Example(list(range(n)), [IGNORE] * n, 0, 0) for n in (5, 9)]

    def logits(part: list[Example], attention: str) -> Tensor:
        model.set_attn_implementation(attention)
        found: Tensor = model(**causal_inputs(on_device(lay_flat(part), model.device))).logits
        return found

    exact = agree(model, lambda: torch.cat([logits([e], before) for e in probe], 1), lambda: logits(probe, NAME))
    model.set_attn_implementation(NAME if exact else before)
    return exact


def on_device(micro: Micro, device: torch.device) -> Micro:
    """The same micro-batch with its tensors on `device`."""
    return Micro(*(None if field is None else field.to(device) for field in micro))  # type: ignore[arg-type]


class PlainAttention:
    """Within this block the model uses its ordinary attention: generation pads on the left, which needs a mask."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.before = model, model.config._attn_implementation

    def __enter__(self) -> None:
        if self.before == NAME:
            self.model.set_attn_implementation("sdpa")

    def __exit__(self, *_: object) -> None:
        self.model.set_attn_implementation(self.before)
