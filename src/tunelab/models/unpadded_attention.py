"""Attention over packed rows: documents laid end to end, attention inside each document only.

Shape letters: T tokens.  On a processor without variable-length kernels this is the fastest exact layout: no pads,
and no quadratic mask over the whole row.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from tunelab.data.examples import MicroBatch

DOCUMENT_KERNEL, VARLEN_KERNEL, TEXT_KERNEL = "documents", "varlen", "texts"  # as registered with transformers


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


MOST_PADS = 0.2  # share of its longest text that the shortest of a group may lack


class TextGroup(NamedTuple):
    """Texts of like length, whose attention is one product.

    Attributes:
        texts: N.
        length: Tokens of the longest, L.
        mask: Added to the scores, (N, 1, L) or (N, L, L): minus infinity where a token is not seen; None if all are.
    """

    texts: int
    length: int
    mask: Tensor | None


class TextGroups(NamedTuple):
    """The texts of a row in groups, and where each row (token, head) stands in them.

    Attributes:
        groups: Longest texts first.
        grouped: For each place of the groups its row, (sum of N x heads x L,); a pad takes its text's last token.
        flat: For each row its place in the groups, (T x heads,).
        pads: The places that are pads.
    """

    groups: list[TextGroup]
    grouped: Tensor
    flat: Tensor
    pads: Tensor


@lru_cache(maxsize=16)
def group_texts(lengths: tuple[int, ...], heads: int, window: int | None, device: torch.device) -> TextGroups:
    """The texts of a row in groups of like length.

    Args:
        lengths: Tokens of each text.
        heads: Of the attention.
        window: Tokens from one position to the furthest it sees, itself included; None sees the whole text.
        device: Where the tensors are needed.
    """
    starts = torch.tensor([0, *lengths]).cumsum(0)
    groups, grouped, pads = list[TextGroup](), list[Tensor](), list[Tensor]()
    flat = torch.empty(int(starts[-1]), heads, dtype=torch.int64)
    size = 0
    for texts in texts_of_like_length(lengths):
        own = torch.tensor([lengths[text] for text in texts])
        places = torch.arange(int(own.max()))
        tokens = starts[texts][:, None] + torch.minimum(places, own[:, None] - 1)  # (N, L)
        there = torch.arange(len(texts) * heads * len(places)).view(len(texts), heads, -1) + size  # (N, heads, L)
        real = places < own[:, None]
        flat[tokens[real]] = there.transpose(1, 2)[real]
        pads.append(there.transpose(1, 2)[~real].flatten())
        grouped.append((tokens[:, None] * heads + torch.arange(heads)[:, None]).flatten())
        seen = real[:, None]
        if window is not None and window <= len(places) - 1:
            seen = seen & ((places - places[:, None]).abs() < window)
        mask = torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))
        groups.append(TextGroup(len(texts), len(places), None if seen.all() else mask.to(device)))
        size += there.numel()
    return TextGroups(groups, torch.cat(grouped).to(device), flat.flatten().to(device), torch.cat(pads).to(device))


def texts_of_like_length(lengths: Sequence[int]) -> list[list[int]]:
    """Texts in groups, longest first: none lacks more than `MOST_PADS` of the longest of its group."""
    groups: list[list[int]] = []
    for text in sorted(range(len(lengths)), key=lambda text: -lengths[text]):
        if groups and lengths[text] >= (1 - MOST_PADS) * lengths[groups[-1][0]]:
            groups[-1].append(text)
        else:
            groups.append([text])
    return groups


class MoveRows(torch.autograd.Function):
    """Rows, each at one or several places; the gradient moves back the same way, and nothing comes from a pad."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, there: Tensor, back: Tensor, pads: Tensor | None) -> Tensor:
        """The rows at `there`; of their gradient those at `back`, and zero at `pads`."""
        ctx.back, ctx.pads = back, pads
        return rows.index_select(0, there)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradient of the rows."""
        moved = grads[0].index_select(0, ctx.back)
        return moved if ctx.pads is None else moved.index_fill_(0, ctx.pads, 0), None, None, None


def into_groups(rows: Tensor, places: TextGroups) -> Tensor:
    """Rows (T x heads, dimension) at their places in groups."""
    grouped: Tensor = MoveRows.apply(rows, places.grouped, places.flat, None)  # type: ignore[no-untyped-call]
    return grouped


def out_of_groups(grouped: Tensor, places: TextGroups) -> Tensor:
    """The rows (T x heads, dimension) of what stands in groups."""
    rows: Tensor = MoveRows.apply(grouped, places.flat, places.grouped, places.pads)  # type: ignore[no-untyped-call]
    return rows


def text_attention(
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
    """Attention in both directions inside each text of a packed row, texts of like length in one product.

    Rows that come without bounds are padded ones, as whoever takes the trained model hands it: PyTorch's attention.

    Args:
        module: As in `document_attention`, like everything not named here.
        query: (1, heads, T, dimension).
        key: As `query`.
        value: As `query`.
        attention_mask: Of padded rows, None where they have no pads; packed rows have none.
        dropout: Probability of dropping an attention weight.
        scaling: Factor on the scores.
        sliding_window: Tokens from one position to the furthest it sees, itself included.
        cu_seq_lens_q: Where each text starts, (texts + 1,); None for padded rows.
        **other: As in `document_attention`.

    Returns:
        The mixed values, (1, T, heads, dimension), and no weights.

    Raises:
        ValueError: If the model needs more than plain scaled dot products.
    """
    if other.get("softcap") is not None or other.get("s_aux") is not None or key.shape != query.shape:
        raise ValueError("this model caps its attention scores, has sinks or shares keys: use padded rows")
    if cu_seq_lens_q is None:
        return attend_padded(query, key, value, attention_mask, dropout, scaling, sliding_window), None
    _, heads, tokens, size = query.shape
    places = group_texts(tuple(cu_seq_lens_q.diff().tolist()), heads, sliding_window, query.device)
    scale = size**-0.5 if scaling is None else scaling
    bounds = [group.texts * heads * group.length for group in places.groups]
    queries, keys, values = (
        into_groups(part.transpose(1, 2).reshape(tokens * heads, size), places).split(bounds)
        for part in (query, key, value)
    )
    mixed = []
    for group, *rows in zip(places.groups, queries, keys, values, strict=True):
        q, k, v = (part.view(group.texts * heads, group.length, size) for part in rows)
        mixed.append(group_attention(group, q, k, v, scale, dropout).reshape(-1, size))
    return out_of_groups(torch.cat(mixed), places).view(1, tokens, heads, size), None


def attend_padded(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> Tensor:
    """The mixed values of padded rows, (rows, T, heads, dimension); arguments as in `text_attention`."""
    length = query.shape[2]
    if mask is None and window is not None and window < length:
        places = torch.arange(length, device=query.device)
        mask = (places - places[:, None]).abs() < window
    mixed = functional.scaled_dot_product_attention(query, key, value, mask, dropout, scale=scaling)
    return mixed.transpose(1, 2).contiguous()


def group_attention(
    group: TextGroup, query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float
) -> Tensor:
    """The mixed values of a group, (N x heads, L, dimension), as the three are.

    PyTorch's kernel for processors has no dropout, and what it falls back to takes three passes more over the scores.
    """
    heads = len(query) // group.texts
    if not dropout:
        q, k, v = (part.view(group.texts, heads, *part.shape[1:]) for part in (query, key, value))
        mask = None if group.mask is None else group.mask[:, None].to(q.dtype)
        return functional.scaled_dot_product_attention(q, k, v, mask, scale=scale)
    if group.mask is None:
        scores = torch.bmm(query * scale, key.transpose(1, 2))
    else:
        hidden = group.mask.to(query.dtype).repeat_interleave(heads, 0)
        scores = torch.baddbmm(hidden, query, key.transpose(1, 2), alpha=scale)
    return torch.bmm(functional.dropout(scores.softmax(-1), dropout).to(value.dtype), value)


def no_mask(*_: Any, **__: Any) -> None:
    """No mask: causality and the bounds of the documents say everything."""


def padded_mask(*, attention_mask: Tensor | None = None, **of_the_pass: Any) -> Tensor | None:
    """The mask of padded rows, as PyTorch's attention takes it; none for packed rows, which come without."""
    if attention_mask is None:
        return None
    mask: Tensor | None = sdpa_mask(attention_mask=attention_mask, **of_the_pass)
    return mask


for name, attention, masked in (
    (DOCUMENT_KERNEL, document_attention, no_mask),
    (VARLEN_KERNEL, varlen_attention, no_mask),
    (TEXT_KERNEL, text_attention, padded_mask),
):
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, masked)


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
