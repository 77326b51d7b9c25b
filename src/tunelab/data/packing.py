"""Packing: which documents share one row.  Pure: lists in, lists out."""

from bisect import bisect_left, insort
from collections.abc import Sequence


def pack_best_fit(indices: Sequence[int], lengths: Sequence[int], *, limit: int) -> list[list[int]]:
    """Put each document into the fullest bin that still has room for it; open a new bin where none has.

    Longest first this is best-fit decreasing (Johnson et al., 1974), which needs at most 11/9 of the fewest bins
    possible, plus one.

    Args:
        indices: Documents, longest first.
        lengths: Tokens of every document.
        limit: Most tokens of one bin; a longer document gets a bin of its own.

    Returns:
        Bins in the order they were opened, each with its documents in the order given.
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # tokens left and number of each bin that has any, the fullest first
    for index in indices:
        place = bisect_left(room, (lengths[index], 0))
        if place < len(room):
            left, number = room.pop(place)
            bins[number].append(index)
        else:
            left, number = limit, len(bins)
            bins.append([index])
        if left > lengths[index]:
            insort(room, (left - lengths[index], number))
    return bins
