"""Layers join from the top down, at steps that follow from the settings alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunelab.optim.param_groups import gradual_unfreezing_steps

DEPTH = {"embed": 0, "low": 1, "high": 2, "norm": 3, "head": 4}


def test_all_learn_from_the_first_step_on_unless_told_otherwise() -> None:
    assert set(gradual_unfreezing_steps(DEPTH, layers=2, every=None, at={}, total=100).values()) == {0}


def test_one_more_layer_joins_every_so_many_steps_from_the_top() -> None:
    wanted = {"head": 0, "norm": 0, "high": 10, "low": 20, "embed": 30}
    assert gradual_unfreezing_steps(DEPTH, layers=2, every=10, at={}, total=100) == wanted
    assert gradual_unfreezing_steps(DEPTH, layers=2, every=0.1, at={}, total=100) == wanted


def test_where_nothing_above_the_layers_learns_the_top_one_starts_at_once() -> None:
    assert gradual_unfreezing_steps({"low": 1, "high": 2}, layers=2, every=5, at={}, total=100) == {"high": 0, "low": 5}


def test_a_part_of_a_name_has_its_own_start() -> None:
    found = gradual_unfreezing_steps(DEPTH, layers=2, every=10, at={"emb": 0.5, "h": 7}, total=100)
    assert found == {"embed": 50, "low": 20, "high": 7, "norm": 0, "head": 7}


@given(st.dictionaries(st.text(min_size=1), st.integers(0, 9), min_size=1), st.floats(0.001, 50), st.integers(1, 1000))
def test_something_learns_at_once_and_no_layer_before_the_one_above(
    depth: dict[str, int], every: float, total: int
) -> None:
    found = gradual_unfreezing_steps(depth, layers=7, every=every, at={}, total=total)
    assert min(found.values()) == 0
    steps = [found[name] for name in sorted(depth, key=lambda name: -depth[name])]
    assert steps == sorted(steps)


@pytest.mark.parametrize("every", [0.0001, 0.4])
def test_a_share_that_rounds_to_nothing_still_waits_a_step(every: float) -> None:
    found = gradual_unfreezing_steps({"a": 1, "b": 2}, layers=2, every=every, at={}, total=2)
    assert found == {"b": 0, "a": 1}
