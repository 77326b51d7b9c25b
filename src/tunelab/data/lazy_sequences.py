"""Lazy sequences: a subset of another sequence, several concatenated, a function mapped over one; nothing is copied."""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain
from typing import Generic, TypeVar, overload

T = TypeVar("T")
S = TypeVar("S")


class LazySequence(Sequence[T], Generic[T]):
    """What the three have in common: slices are lists."""

    def item(self, place: int) -> T:
        """The item at a place that exists."""
        raise NotImplementedError

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> list[T]: ...
    def __getitem__(self, place: int | slice) -> T | list[T]:
        if isinstance(place, slice):
            return [self.item(i) for i in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(f"there are {len(self)} items, none at {place}")
        return self.item(place % len(self))

    def __iter__(self) -> Iterator[T]:
        return map(self.item, range(len(self)))


class SubsetView(LazySequence[T]):
    """The items of `whole` at `places`, in that order."""

    def __init__(self, whole: Sequence[T], places: Sequence[int]) -> None:
        self.whole, self.places = whole, places if isinstance(places, range) else array("q", places)

    def __len__(self) -> int:
        return len(self.places)

    def item(self, place: int) -> T:
        return self.whole[self.places[place]]


class ConcatView(LazySequence[T]):
    """The items of several sequences, one sequence after another."""

    def __init__(self, parts: Sequence[Sequence[T]]) -> None:
        self.parts = parts
        self.starts = [0, *accumulate(map(len, parts))]

    def __len__(self) -> int:
        return self.starts[-1]

    def item(self, place: int) -> T:
        part = bisect_right(self.starts, place) - 1
        return self.parts[part][place - self.starts[part]]

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(self.parts)


class MappedView(LazySequence[T]):
    """`action` of each item, worked out when asked for."""

    def __init__(self, action: Callable[[S], T], whole: Sequence[S]) -> None:
        self.action, self.whole = action, whole

    def __len__(self) -> int:
        return len(self.whole)

    def item(self, place: int) -> T:
        return self.action(self.whole[place])


def select_items(whole: Sequence[T], places: Sequence[int]) -> Sequence[T]:
    """The items at `places`: a list of a list, else a view."""
    return [whole[i] for i in places] if isinstance(whole, list) else SubsetView(whole, places)


def concatenate(parts: Sequence[Sequence[T]]) -> Sequence[T]:
    """One sequence after another: a list of lists, else a view."""
    return list(chain.from_iterable(parts)) if all(isinstance(part, list) for part in parts) else ConcatView(parts)
