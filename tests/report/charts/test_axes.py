"""Round numbers along the axes, and numbers as people write them."""

import math
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tunelab.analysis.number_format import format_number, format_ticks
from tunelab.report.charts.axes import axis_ticks


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (1234, "1,234"),
        (12_345, "12.3k"),
        (4_500_000, "4.5M"),
        (0.3, "0.3"),
        (0.12345, "0.123"),
        (3e-5, "3e-5"),
        (2.5e40, "2.5e40"),
        (-0.5, "-0.5"),
        (math.nan, "not a number"),
        (-math.inf, "-infinite"),
    ],
)
def test_numbers_read_as_people_write_them(value: float, shown: str) -> None:
    assert format_number(value) == shown


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12), st.integers(2, 9))
def test_linear_ticks_lie_inside_evenly_and_are_steps_of_1_2_or_5(low: float, span: float, most: int) -> None:
    high = low + span
    assume(span > 1e-6 * abs(low))
    found = axis_ticks(low, high, most)

    assert len(found) <= most
    assert all(low - span * 1e-6 <= value <= high + span * 1e-6 for value in found)
    steps = [b - a for a, b in pairwise(found)]
    assert all(step == pytest.approx(steps[0], rel=1e-3) and f"{step:.1e}"[0] in "125" for step in steps)


def test_an_axis_from_0_to_1_has_the_ticks_one_would_draw() -> None:
    assert axis_ticks(0, 1, 7) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert format_ticks(axis_ticks(0, 1, 7)) == ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]


def test_a_log_axis_has_decades_and_fewer_of_them_where_they_are_many() -> None:
    assert axis_ticks(1e-5, 1e-1, 6, "log") == [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    assert axis_ticks(1e-9, 1e6, 6, "log") == [1e-9, 1e-6, 1e-3, 1, 1e3, 1e6]
    assert axis_ticks(1, 100, 9, "log") == [1, 2, 5, 10, 20, 50, 100]


def test_a_log_axis_shorter_than_a_step_still_has_two_ticks() -> None:
    assert len(axis_ticks(3.1e-4, 3.9e-4, 6, "log")) >= 2


def test_whole_numbers_are_never_halved() -> None:
    assert axis_ticks(0, 2, 9, integers_only=True) == [0, 1, 2]


def test_the_numbers_of_one_axis_share_their_unit_and_decimals() -> None:
    assert format_ticks([0, 5e6, 1e7]) == ["0", "5M", "10M"]
    assert format_ticks([100_000, 100_001]) == ["100.000k", "100.001k"]
