"""Keys and values of a batch whose rows come and go: room to grow, rows moved and added, columns left behind.

Shape letters: B rows, T tokens of the longest, K rows that come in.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Cache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

LEAST_ROOM = 64  # columns that are spare after each move of the past, at least


class GrowingLayer(DynamicLayer):
    """A layer that writes each token into spare room, where transformers' own copies the whole past for it.

    Attributes:
        room: Tensors of keys and values, (places, heads, columns, dimension); the first `rows` places and the columns
            from `begin` to `end` hold tokens.
        owned: Whether the room is the layer's own; what a model gave is only read.
    """

    def __init__(self, **_: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.room: list[Tensor] = []
        self.owned = False
        self.rows = self.begin = self.end = 0

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write new tokens (B, heads, new, dimension); all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = key_states.shape[-2]
        if not self.room:  # prompts may be all there is, or move to another layer
            self.room = [key_states, value_states]
            return self._show(len(key_states), 0, new)
        if self.end + new > self.room[0].shape[-2]:
            self._make_room(len(self.room[0]), new)
        for room, states in zip(self.room, (key_states, value_states), strict=True):
            room[: self.rows, :, self.end : self.end + new] = states
        return self._show(self.rows, self.begin, self.end + new)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows, in this order."""
        self.room = [room[: self.rows, :, self.begin : self.end].index_select(0, indices) for room in self.room]
        self._show(len(indices), 0, self.end - self.begin)

    def move_rows(self, moved: Sequence[tuple[int, int]], width: int, rows: int) -> None:
        """Move the last tokens of some rows, each pair says where to and where from, and keep the first rows."""
        if moved:
            if not self.owned:
                self._make_room(len(self.room[0]), 0)
            places, sources = torch.tensor(moved, device=self.device).T
            begin = max(self.begin, self.end - width)
            for room in self.room:
                room[places, :, begin : self.end] = room[sources, :, begin : self.end]
        self._show(rows, self.begin, self.end)

    def add_rows(self, other: DynamicLayer, places: int) -> None:
        """Add the rows of another layer, no wider than this one, at its end; there will be at most so many."""
        states = (other.keys, other.values)
        assert states[0] is not None
        rows, width = self.rows + len(states[0]), states[0].shape[-2]
        if rows > len(self.room[0]):
            self._make_room(max(rows, places), 0)
        for room, coming in zip(self.room, states, strict=True):
            assert coming is not None
            room[self.rows : rows, :, self.begin : self.end - width] = 0  # pads are read where neighbours are wider
            room[self.rows : rows, :, self.end - width : self.end] = coming
        self._show(rows, self.begin, self.end)

    def leave_behind(self, columns: int) -> None:
        """Drop the oldest columns, in which no row has a token."""
        self._show(self.rows, self.begin + columns, self.end)

    def _make_room(self, places: int, new: int) -> None:
        width = self.end - self.begin
        columns = width + new + max(LEAST_ROOM, (width + new) // 4)
        for index, old in enumerate(self.room):  # one after the other: never both twice
            grown = old.new_empty(places, old.shape[1], columns, old.shape[3])
            grown[: self.rows, :, :width] = old[: self.rows, :, self.begin : self.end]
            self.room[index] = grown
        self.owned = True
        self.begin, self.end = 0, width

    def _show(self, rows: int, begin: int, end: int) -> tuple[Tensor, Tensor]:
        self.rows, self.begin, self.end = rows, begin, end
        self.keys, self.values = (room[:rows, :, begin:end] for room in self.room)
        return self.keys, self.values


def growing_cache(cache: Any) -> Any:
    """The empty cache, its layers replaced by growing ones where they keep every token."""
    for part in caches_of(cache):
        part.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in part.layers]
        if getattr(part, "layer_class_to_replicate", None) is DynamicLayer:
            part.layer_class_to_replicate = GrowingLayer
    return cache


def can_replace_rows(cache: Cache) -> bool:
    """Whether rows of an empty cache can be taken out and added: all its layers keep plain keys and values."""
    kinds = (GrowingLayer, DynamicSlidingWindowLayer)
    return all(part.layers and all(type(layer) in kinds for layer in part.layers) for part in caches_of(cache))


def keep_rows(cache: Cache, order: Sequence[int], lengths: Sequence[int]) -> None:
    """Keep some rows of a cache in this order; of those that move no more tokens than their `lengths`."""
    moved = [(place, row) for place, row in enumerate(order) if place != row]
    width = max((lengths[place] for place, _ in moved), default=0)
    for part in caches_of(cache):
        for layer in part.layers:
            if isinstance(layer, GrowingLayer):
                layer.move_rows(moved, width, len(order))
            else:
                layer.batch_select_indices(torch.tensor(order, device=layer.device))


def add_rows(cache: Cache, other: Cache, places: int) -> None:
    """Add the rows of another cache, no wider than this one, at the end of it; there will be at most so many rows."""
    for part, new in zip(caches_of(cache), caches_of(other), strict=True):
        for layer, source in zip(part.layers, new.layers, strict=True):
            if isinstance(layer, GrowingLayer):
                layer.add_rows(source, places)
            else:  # holds the last tokens alone, as many as its window
                layer.keys, layer.values = (
                    torch.cat([past, functional.pad(coming, (0, 0, past.shape[-2] - coming.shape[-2], 0))])
                    for past, coming in ((layer.keys, source.keys), (layer.values, source.values))
                )


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
