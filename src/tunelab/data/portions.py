"""Which rows an epoch takes of each source of a mix.  Pure."""

from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from tunelab.data.batching import mix, shuffled
from tunelab.errors import DataError


class Portion(NamedTuple):
    """The examples of one source, which stand together in a split."""

    name: str
    start: int
    stop: int
    weight: float = 1.0

    @property
    def rows(self) -> int:
        """Its examples."""
        return self.stop - self.start

    @property
    def drawn(self) -> int:
        """How many an epoch sees: rows times weight, to the nearest whole number."""
        return int(self.rows * self.weight + 0.5)


def portions_of(sources: Sequence[str], weights: Mapping[str, float]) -> list[Portion]:
    """Where the examples of each source stand; sources without an example are left out.

    Args:
        sources: The source of each example, those of one source together.
        weights: Of each source, by name.

    Raises:
        DataError: If a weight is so small that an epoch sees nothing of its source.
    """
    found: list[Portion] = []
    for place, name in enumerate(sources):
        if not found or found[-1].name != name:
            found.append(Portion(name, place, place, weights.get(name, 1.0)))
        found[-1] = found[-1]._replace(stop=place + 1)
    if empty := [portion for portion in found if not portion.drawn]:
        named = ", ".join(f"{p.weight:g} of the {p.rows} examples of {p.name}" for p in empty)
        raise DataError(f"data.mix: {named} is less than half an example, so none is ever seen; raise the weight")
    return found


def apart(micros: Sequence[Sequence[int]], portions: Sequence[Portion]) -> list[list[int]]:
    """Micro-batches of examples, cut further so that none holds examples of two sources."""
    starts = [portion.start for portion in portions]
    return [
        list(part)
        for micro in micros
        for _, part in groupby(sorted(micro, key=lambda i: bisect_right(starts, i)), lambda i: bisect_right(starts, i))
    ]


def epoch_places(portions: Sequence[Portion], *, seed: int, epoch: int) -> "array[int]":
    """The examples of an epoch, before they are shuffled; with a weight of 1 throughout, each once and in order.

    A weight of 2.5 takes every row twice, and half of the rows, drawn afresh each epoch without repeats, once more.
    """
    places = array("q")  # a tenth of a list
    for number, portion in enumerate(portions):
        whole, rest = divmod(portion.drawn, portion.rows)
        places += array("q", range(portion.start, portion.stop)) * whole
        if rest:
            drawn = shuffled(portion.rows, seed=mix(seed, number, portion.rows), epoch=epoch)[:rest]
            places += array("q", sorted(portion.start + row for row in drawn))
    return places
