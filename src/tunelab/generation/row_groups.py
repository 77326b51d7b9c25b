"""Rows of a batch in groups of like length: the attention of a group stops at its longest row.

Keys and values stand at the right; what a shorter row has to its left is pads, which would be read from memory for
nothing, and reading them is what attention to one new token costs.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

GROUPED_KERNEL = "row_groups"  # as registered with transformers
SPARE_PADS = 128  # pads that a group more would save, at least: each is a call


class RowGroup(NamedTuple):
    """Rows that stand side by side.

    Attributes:
        rows: How many.
        width: Tokens of the longest.
    """

    rows: int
    width: int


_GROUPS: ContextVar[Sequence[RowGroup]] = ContextVar("groups", default=())


@contextmanager
def use_groups(groups: Sequence[RowGroup]) -> Iterator[None]:
    """Within this block rows have these lengths, the token that they read included."""
    token = _GROUPS.set(groups)
    try:
        yield
    finally:
        _GROUPS.reset(token)


def grouped_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **more: Any
) -> tuple[Tensor, None]:
    """PyTorch's attention, for one new token of each row group by group inside `use_groups`.

    Args:
        module: The attention layer.
        query: (B, heads, T, dimension).
        key: (B, key heads, past and T, dimension).
        value: As `key`.
        attention_mask: True where a token is seen, (B, 1, T, past and T); None where all are.
        **more: Whatever else a model passes.

    Returns:
        The mixed values, (B, T, heads, dimension), and no weights.
    """
    attend: Callable[..., tuple[Tensor, None]] = sdpa_attention_forward
    groups = _GROUPS.get()
    if len(groups) < 2 or query.shape[2] != 1 or more.get("position_bias") is not None:
        return attend(module, query, key, value, attention_mask, **more)
    mixed, first = [], 0
    for rows, width in groups:
        here, pads = slice(first, first + rows), max(0, key.shape[2] - width)
        mask = None if attention_mask is None else attention_mask[here, ..., pads:]
        mixed.append(attend(module, query[here], key[here, :, pads:], value[here, :, pads:], mask, **more)[0])
        first += rows
    return torch.cat(mixed), None


AttentionInterface.register(GROUPED_KERNEL, grouped_attention)
AttentionMaskInterface.register(GROUPED_KERNEL, sdpa_mask)


@contextmanager
def grouped_kernel(model: PreTrainedModel) -> Iterator[None]:
    """Within this block a model on a processor that uses PyTorch's attention reads no pads inside `use_groups`."""
    before = model.config._attn_implementation
    members: Sequence[Any] = getattr(model, "models", [model])  # of a mixture
    fits = all(
        member.config._attn_implementation == "sdpa" and member._can_set_attn_implementation() for member in members
    )
    if not fits or model.device.type != "cpu":
        yield
        return
    model.set_attn_implementation(GROUPED_KERNEL)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def close_ranks(sizes: Sequence[int], done: Collection[int]) -> tuple[list[int], list[int]]:
    """The rows that are not done, in an order in which groups stay together and few rows move; the groups' new sizes.

    Args:
        sizes: Rows of each group.
        done: Rows that leave.
    """
    order: list[int] = []
    kept_sizes, first = [], 0
    for size in sizes:
        kept = [row for row in range(first, first + size) if row not in done]
        places = range(len(order), len(order) + len(kept))
        staying = {row for row in kept if row in places}
        moving = iter(row for row in kept if row not in staying)
        order += [place if place in staying else next(moving) for place in places]
        kept_sizes.append(len(kept))
        first += size
    return order, [size for size in kept_sizes if size]


def merge_groups(sizes: Sequence[int], lengths: Sequence[int]) -> list[RowGroup]:
    """Groups of rows of these lengths, those joined that are hardly worth a call of their own."""
    merged, first = list[RowGroup](), 0
    for size in sizes:
        group = RowGroup(size, max(lengths[first : first + size]))
        first += size
        if merged:
            last = merged[-1]
            width = max(last.width, group.width)
            pads = last.rows * (width - last.width) + group.rows * (width - group.width)
            if pads < SPARE_PADS:
                merged[-1] = RowGroup(last.rows + group.rows, width)
                continue
        merged.append(group)
    return merged
