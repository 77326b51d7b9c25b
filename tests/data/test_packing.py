"""Bins of documents: nothing lost, nothing too full, close to the fewest there can be."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunelab.data.batching import longest_first, split_micro_batches
from tunelab.data.packing import pack_best_fit

LENGTHS = st.lists(st.integers(1, 60), max_size=60)


def sorted_bins(lengths: list[int], limit: int) -> list[list[int]]:
    return pack_best_fit(longest_first(range(len(lengths)), lengths), lengths, limit=limit)


def next_fit(lengths: list[int], limit: int) -> int:
    """Bins of the simplest way: close a bin for good as soon as a document does not fit."""
    bins, room = 0, 0
    for length in sorted(lengths, reverse=True):
        if length > room:
            bins, room = bins + 1, limit
        room -= length
    return bins


def fewest(lengths: list[int], limit: int) -> int:
    """The smallest number of bins, by trying every bin for every document."""
    ordered = sorted(lengths, reverse=True)
    best = len(ordered)

    def place(position: int, rooms: tuple[int, ...]) -> None:
        nonlocal best
        if len(rooms) >= best:
            return
        if position == len(ordered):
            best = len(rooms)
            return
        length = ordered[position]
        for room in {room for room in rooms if room >= length}:
            rest = list(rooms)
            rest[rest.index(room)] -= length
            place(position + 1, tuple(sorted(rest)))
        place(position + 1, (*rooms, limit - length))

    place(0, ())
    return best


@given(LENGTHS, st.integers(1, 80))
def test_every_document_is_in_one_bin_and_no_bin_is_too_full(lengths: list[int], limit: int) -> None:
    bins = sorted_bins(lengths, limit)

    assert sorted(index for found in bins for index in found) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in found) <= limit or len(found) == 1 for found in bins)


@given(st.lists(st.integers(1, 30), max_size=60), st.integers(30, 90))
def test_no_more_bins_than_by_closing_a_bin_at_the_first_misfit(lengths: list[int], limit: int) -> None:
    assert len(sorted_bins(lengths, limit)) <= next_fit(lengths, limit)


@given(st.lists(st.integers(1, 20), max_size=9), st.integers(20, 40))
def test_at_most_two_ninths_and_one_above_the_fewest_possible(lengths: list[int], limit: int) -> None:
    assert len(sorted_bins(lengths, limit)) <= 11 / 9 * fewest(lengths, limit) + 1


@given(LENGTHS, st.integers(1, 80))
def test_a_bin_is_opened_only_where_no_other_had_room(lengths: list[int], limit: int) -> None:
    # Any two bins hold more than one limit together: otherwise the second would not have been opened
    sizes = [sum(lengths[i] for i in found) for found in sorted_bins(lengths, limit)]
    assert all(one + other > limit for one, other in pairwise(sizes))


def test_a_document_goes_where_least_room_is_left() -> None:
    # Given bins of 10 with 4 and 3 tokens left, when 3 tokens come, then they fill the tighter one
    assert pack_best_fit([0, 1, 2], [6, 7, 3], limit=10) == [[0], [1, 2]]


def test_a_document_longer_than_the_limit_has_a_bin_of_its_own() -> None:
    assert pack_best_fit([0, 1, 2], [50, 4, 4], limit=10) == [[0], [1, 2]]


@pytest.mark.parametrize("packed", [True, False])
def test_the_cut_is_the_same_every_time(packed: bool) -> None:
    lengths = [7, 3, 7, 1, 9, 3, 3, 5]
    order = longest_first(range(8), lengths)
    first = split_micro_batches(order, lengths, micro_tokens=12, packed=packed)
    assert first == split_micro_batches(order, lengths, micro_tokens=12, packed=packed)
    assert sorted(i for micro in first for i in micro) == list(range(8))


def test_flat_rows_fill_the_holes_that_padded_rows_leave() -> None:
    # Given nine long and nine short documents
    lengths = [9] * 9 + [1] * 9

    packed = split_micro_batches(range(18), lengths, micro_tokens=10, packed=True)
    padded = split_micro_batches(range(18), lengths, micro_tokens=10, packed=False)

    assert all(sum(lengths[i] for i in micro) == 10 for micro in packed)
    assert (len(packed), len(padded)) == (9, 10)
