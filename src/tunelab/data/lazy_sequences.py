"""Lazy sequences: a subset of another sequence, several concatenated, a function mapped over one; nothing is copied."""

from abc import abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain, groupby
from typing import Generic, TypeVar, overload

T = TypeVar("T")
S = TypeVar("S")
ITEMS_AT_ONCE = 1024  # items that an iteration makes together


class LazySequence(Sequence[T], Generic[T]):
    """Base of the lazy sequences: items are made on access, slices are lists."""

    @abstractmethod
    def item(self, index: int) -> T:
        """The item at an index within bounds."""

    def take(self, indices: Sequence[int]) -> list[T]:
        """The items at some indices within bounds; many at once cost less than one by one."""
        return [self.item(index) for index in indices]

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return self.take(range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(f"length {len(self)}, none at {index}")
        return self.item(index % len(self))

    def __iter__(self) -> Iterator[T]:
        for start in range(0, len(self), ITEMS_AT_ONCE):
            yield from self.take(range(start, min(start + ITEMS_AT_ONCE, len(self))))


class SubsetView(LazySequence[T]):
    """The items of `whole` at `indices`, in that order."""

    def __init__(self, whole: Sequence[T], indices: Sequence[int]) -> None:
        self.whole, self.indices = whole, indices if isinstance(indices, range | array) else array("q", indices)

    def __len__(self) -> int:
        return len(self.indices)

    def item(self, index: int) -> T:
        return self.whole[self.indices[index]]

    def take(self, indices: Sequence[int]) -> list[T]:
        return take_items(self.whole, [self.indices[index] for index in indices])


class ConcatView(LazySequence[T]):
    """The items of several sequences, one sequence after another."""

    def __init__(self, parts: Sequence[Sequence[T]]) -> None:
        self.parts = parts
        self.starts = [0, *accumulate(map(len, parts))]

    def __len__(self) -> int:
        return self.starts[-1]

    def item(self, index: int) -> T:
        part = bisect_right(self.starts, index) - 1
        return self.parts[part][index - self.starts[part]]

    def take(self, indices: Sequence[int]) -> list[T]:
        taken: list[T] = []
        for part, of_part in groupby(indices, lambda index: bisect_right(self.starts, index) - 1):
            taken += take_items(self.parts[part], [index - self.starts[part] for index in of_part])
        return taken

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(self.parts)


class MappedView(LazySequence[T]):
    """`action` of each item, applied on access."""

    def __init__(self, action: Callable[[S], T], whole: Sequence[S]) -> None:
        self.action, self.whole = action, whole

    def __len__(self) -> int:
        return len(self.whole)

    def item(self, index: int) -> T:
        return self.action(self.whole[index])

    def take(self, indices: Sequence[int]) -> list[T]:
        return list(map(self.action, take_items(self.whole, indices)))


def take_items(whole: Sequence[T], indices: Sequence[int]) -> list[T]:
    """The items at some indices within bounds, as a list."""
    return whole.take(indices) if isinstance(whole, LazySequence) else [whole[index] for index in indices]


def select_items(whole: Sequence[T], indices: Sequence[int]) -> Sequence[T]:
    """The items at `indices`: a list of a list, else a view."""
    return [whole[i] for i in indices] if isinstance(whole, list) else SubsetView(whole, indices)


def concatenate(parts: Sequence[Sequence[T]]) -> Sequence[T]:
    """One sequence after another: a list of lists, else a view."""
    return list(chain.from_iterable(parts)) if all(isinstance(part, list) for part in parts) else ConcatView(parts)


def evenly_spaced(rows: int, most: int) -> list[int]:
    """At most `most` of `rows` indices, evenly spaced from the first.

    Example:
        >>> evenly_spaced(9, 3)
        [0, 3, 6]
    """
    return list(range(rows)) if rows <= most else [place * rows // most for place in range(most)]
