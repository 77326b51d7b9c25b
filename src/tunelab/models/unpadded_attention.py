"""Attention over packed rows: documents laid end to end, attention inside each document only.

Shape letters: T tokens.  On a processor without variable-length kernels this is the fastest exact layout: no pads,
and no quadratic mask over the whole row.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from tunelab.data.examples import MicroBatch

DOCUMENT_KERNEL, VARLEN_KERNEL = "documents", "varlen"  # as registered with transformers


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
    """Causal attention inside each document of a packed row.

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
        **other: Whatever else a model passes; score caps and sinks are refused.

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


def varlen_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **other: Any,
) -> tuple[Tensor, None]:
    """The same through PyTorch's kernel for documents of any length: on a GPU, in half precision.

    Args:
        module: As in `document_attention`, like everything not named here.
        query: (1, heads, T, dimension).
        key: (1, key heads, T, dimension).
        value: As `key`.
        attention_mask: Always None.
        dropout: Must be 0; the kernel has none.
        scaling: Factor on the scores.
        sliding_window: Tokens a position can look back, itself included.
        cu_seq_lens_q: Where each document starts, (documents + 1,) int32; None for rows that are one document each.
        max_length_q: Tokens of the longest document.
        **other: As in `document_attention`.

    Returns:
        The mixed values, (1, T, heads, dimension), and no weights.

    Raises:
        ValueError: If the kernel does not compute what the model needs.
    """
    from torch.nn.attention.varlen import varlen_attn  # registers kernels: only where they are used

    if dropout or other.get("softcap") is not None or other.get("s_aux") is not None:
        raise ValueError("this model drops or caps attention scores, or has sinks: PyTorch's kernel does not")
    rows, length = query.shape[0], query.shape[2]
    bounds, longest = cu_seq_lens_q, max_length_q
    if bounds is None or longest is None:
        bounds, longest = torch.arange(rows + 1, dtype=torch.int32, device=query.device) * length, length
    kind = torch.get_autocast_dtype(query.device.type) if query.dtype == torch.float32 else query.dtype
    q, k, v = (part.transpose(1, 2).flatten(0, 1).to(kind).contiguous() for part in (query, key, value))
    back = -1 if sliding_window is None else sliding_window - 1
    if (shared := q.shape[1] // k.shape[1]) > 1:  # not every PyTorch that has the kernel lets heads share keys
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
    mixed = varlen_attn(q, k, v, bounds, bounds, longest, longest, scale=scaling, window_size=(back, 0))
    return mixed.view(rows, length, *mixed.shape[1:]), None  # type: ignore[union-attr]


for name, attention in ((DOCUMENT_KERNEL, document_attention), (VARLEN_KERNEL, varlen_attention)):
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, lambda *_, **__: None)


def causal_inputs(micro: MicroBatch) -> dict[str, Any]:
    """Keyword arguments of a causal model.  No attention mask: pads are on the right, where no real token looks,
    and an all-ones mask would make transformers forget the document bounds.
    """
    inputs: dict[str, Any] = {"input_ids": micro.ids, "use_cache": False}
    if micro.document_starts is None:
        return inputs
    bounds, longest = micro.document_starts.int(), int(micro.lengths.max())
    return inputs | {
        "position_ids": micro.positions,
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def micro_to_device(micro: MicroBatch, device: torch.device) -> MicroBatch:
    """The same micro-batch with its tensors on `device`."""
    return MicroBatch(*(None if field is None else field.to(device) for field in micro))  # type: ignore[arg-type]


class PlainAttention:
    """Within this block the model uses its ordinary attention: generation pads on the left, which needs a mask."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.before = model, model.config._attn_implementation

    def __enter__(self) -> None:
        if self.before in (DOCUMENT_KERNEL, VARLEN_KERNEL, "flash_attention_2"):
            self.model.set_attn_implementation("sdpa" if self.model._supports_sdpa else "eager")

    def __exit__(self, *_: object) -> None:
        self.model.set_attn_implementation(self.before)
