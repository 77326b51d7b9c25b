"""Keys and values of a batch whose rows come and go: room to grow, rows replaced in place, columns left behind.

Shape letters: B rows, T tokens of the longest, K rows that come in.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

LEAST_ROOM = 64  # columns that are spare after each move of the past, at least


class GrowingLayer(DynamicLayer):
    """A layer that writes each token into spare room, where transformers' own copies the whole past for it.

    Attributes:
        room: Tensors of keys and values, (B, heads, columns, dimension); those from `begin` to `end` hold tokens.
    """

    def __init__(self, **_: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.room: list[Tensor] = []
        self.begin = self.end = 0

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write new tokens (B, heads, new, dimension); all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        after = self.end + key_states.shape[-2]
        if not self.room or after > self.room[0].shape[-2]:
            self._make_room((key_states, value_states))
            after = self.end + key_states.shape[-2]
        for room, states in zip(self.room, (key_states, value_states), strict=True):
            room[:, :, self.end : after] = states
        return self._show(self.begin, after)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        self.room = [room[:, :, self.begin :].index_select(0, indices) for room in self.room]
        self._show(0, self.end - self.begin)

    def replace_rows(self, rows: Tensor, other: DynamicLayer) -> None:
        """Put the tokens of another layer in place of rows (K,), at their ends."""
        for room, states in zip(self.room, (other.keys, other.values), strict=True):
            assert states is not None
            room[rows, :, self.end - states.shape[-2] : self.end] = states

    def leave_behind(self, columns: int) -> None:
        """Drop the oldest columns, in which no row has a token."""
        self._show(self.begin + columns, self.end)

    def _make_room(self, states: tuple[Tensor, ...]) -> None:
        width = self.end - self.begin
        needed = width + states[0].shape[-2]
        columns = needed + max(LEAST_ROOM, needed // 4)
        grown = [part.new_zeros(*part.shape[:2], columns, part.shape[3]) for part in states]
        for new, old in zip(grown, self.room, strict=False):
            new[:, :, :width] = old[:, :, self.begin : self.end]
        self.room, self.begin, self.end = grown, 0, width

    def _show(self, begin: int, end: int) -> tuple[Tensor, Tensor]:
        self.begin, self.end = begin, end
        self.keys, self.values = (room[:, :, begin:end] for room in self.room)
        return self.keys, self.values


def growing_cache(cache: Any) -> Any:
    """The empty cache, its layers replaced by growing ones where they keep every token."""
    for part in caches_of(cache):
        part.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in part.layers]
        if getattr(part, "layer_class_to_replicate", None) is DynamicLayer:
            part.layer_class_to_replicate = GrowingLayer
    return cache


def can_replace_rows(cache: Cache) -> bool:
    """Whether rows of an empty cache can be replaced in place: all its layers keep plain keys and values."""
    kinds = (GrowingLayer, DynamicSlidingWindowLayer)
    return all(part.layers and all(type(layer) in kinds for layer in part.layers) for part in caches_of(cache))


def replace_rows(cache: Cache, rows: Tensor, other: Cache) -> None:
    """Put the tokens of another cache, no wider than this one, in place of rows (K,), at their ends."""
    for part, new in zip(caches_of(cache), caches_of(other), strict=True):
        for layer, source in zip(part.layers, new.layers, strict=True):
            if isinstance(layer, GrowingLayer):
                layer.replace_rows(rows, source)
            else:  # holds the last tokens alone, as many as its window
                layer.keys[rows, :, -source.keys.shape[-2] :] = source.keys
                layer.values[rows, :, -source.keys.shape[-2] :] = source.values


def leave_behind(cache: Cache, columns: int) -> None:
    """Drop the oldest columns, in which no row has a token."""
    for part in caches_of(cache):
        for layer in part.layers:
            if isinstance(layer, GrowingLayer):
                layer.leave_behind(columns)
            else:
                layer.cumulative_length -= columns
                spare = max(0, layer.keys.shape[-2] - layer.cumulative_length)
                layer.keys, layer.values = layer.keys[:, :, spare:], layer.values[:, :, spare:]


def caches_of(cache: Any) -> list[Any]:
    """The caches of the members of a mixture; of a single model its own.  Their layers have no common type."""
    return list(getattr(cache, "caches", [cache]))


def padding_columns(mask: Tensor, rows: list[int]) -> int:
    """The columns of a mask (B, T) before the first token of any of these rows."""
    return int((mask[torch.tensor(rows, device=mask.device)].any(0)).int().argmax())
