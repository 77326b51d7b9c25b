"""The meaning of a space, and the texts it refuses."""

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tunelab.search.samplers import SamplerPair
from tunelab.search.space import Choice, NumericRange, build_space, parse_dimension, to_hydra_text
from tunelab.search.suggest import SamplerProposer, params_key

plain_values = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False), st.text()
)


@pytest.mark.parametrize(
    ("words", "default", "expected"),
    [
        ("interval(1e-5,1e-3)", 3e-5, NumericRange(1e-5, 1e-3, log=True)),
        ("interval(1e-5,9e-4)", 3e-5, NumericRange(1e-5, 9e-4)),
        ("tag(log,interval(1,5))", 2.0, NumericRange(1, 5, log=True)),
        ("tag(linear,interval(1e-5,1))", 2.0, NumericRange(1e-5, 1)),
        ("interval(1,8)", 4, NumericRange(1, 8, integer=True)),
        ("interval(0,1)", 0.5, NumericRange(0, 1)),
        ("int(interval(1,8))", None, NumericRange(1, 8, integer=True)),
        ("int(interval(1,256))", None, NumericRange(1, 256, integer=True, log=True)),
        ("range(1,8)", None, NumericRange(1, 7, integer=True)),
        ("range(1,9,2)", None, Choice((1, 3, 5, 7), ("1", "3", "5", "7"))),
        ("adamw,sgd", "adamw", Choice(("adamw", "sgd"), ("adamw", "sgd"))),
        ("[l2],[l1,swa]", None, Choice(("[l2]", "[l1,swa]"), ("[l2]", "[l1,swa]"))),
        ([8, 16], 32, Choice((8, 16), ("8", "16"))),
    ],
)
def test_words_become_the_dimension_they_mean(words: Any, default: Any, expected: Any) -> None:
    assert parse_dimension("key", words, default) == expected


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("1e-5", "is one value"),
        ("interval(5,1)", "is no range"),
        ("interval(1,1)", "is no range"),
        ("tag(log,interval(0,1))", "logarithm"),
        ("interval(1.5,8)", "integer"),
        ("interval(1", "write interval"),
        ([], "empty list"),
        (3, "is one value"),
    ],
)
def test_what_is_no_set_of_values_is_refused_with_a_way_out(words: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_dimension("key", words, 4)


@given(plain_values)
def test_any_value_of_a_list_is_read_back_as_it_was(value: Any) -> None:
    text = to_hydra_text(value)
    if "\x00" in text or "\n" in text or "\r" in text:  # no shell passes these on
        return
    found = OverridesParser.create().parse_override(f"key={text}").value()
    found = getattr(found, "text", found)
    assert found == value and type(found) is type(value)


def test_settings_that_depend_on_another_come_and_go_with_it() -> None:
    space = build_space(
        {"optimizer": "adamw,sgd", "lr": "interval(1e-5,1e-3)"},
        {"optimizer=sgd": {"optimizer.momentum": "interval(0.5,0.99)"}},
        {},
    )
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, multivariate=True, group=True))
    for _ in range(30):
        params = space.suggest(study.ask())
        assert ("optimizer.momentum" in params) == (params["optimizer"] == "sgd")
        assert space.contains(params)
        assert all(override.partition("=")[0] in params for override in space.overrides(params))


def test_a_grid_counts_conditional_points() -> None:
    space = build_space({"a": "x,y", "b": [1, 2]}, {"a=y": {"c": "range(0,3)"}}, {})

    assert space.size() == 2 + 2 * 3
    assert len({str(sorted(point.items())) for point in space.grid()}) == 8


def test_a_grid_over_a_range_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="lr is a continuous range"):
        list(build_space({"lr": "interval(1e-5,1e-3)", "n": [1]}, {}, {}).grid())


def test_every_fault_of_a_space_is_told_at_once() -> None:
    with pytest.raises(ValueError) as told:
        when = {"a=z": {"c": "1,2"}, "b=1": {"d": "1,2"}, "a=x": {"a": "1,2"}}
        build_space({"lr": "interval(5,1)", "a": "x,y"}, when, {})

    assert str(told.value).count("\n") == 3
    assert "a never is z" in str(told.value) and "'b=1' must be KEY=VALUE" in str(told.value)


def test_one_and_true_are_two_values() -> None:
    found = parse_dimension("key", [1, True, 1.0])

    assert [found.text(value) for value in found.grid_values() or ()] == ["1", "true", "1.0"]


def test_wide_positive_ranges_are_searched_by_their_logarithm_in_fact() -> None:
    space = build_space({"lr": "interval(1e-6,1e-2)"}, {}, {})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    draws = [math.log10(float(str(space.suggest(study.ask())["lr"]))) for _ in range(400)]

    assert sum(draw < -4 for draw in draws) == pytest.approx(200, abs=40)


ARMS = {"optimizer=adamw": {"lr": [1e-3, 2e-3]}, "optimizer=sgd": {"lr": [0.1, 0.3]}}


def test_one_name_may_have_a_list_of_its_own_under_each_condition_in_one_study(tmp_path: Path) -> None:
    space = build_space({"optimizer": ["adamw", "sgd"]}, ARMS, {})
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    study = optuna.create_study(storage=storage)
    points = list(space.grid())
    for params in points:
        study.enqueue_trial(params)
        trial = study.ask()
        assert space.suggest(trial) == params
        study.tell(trial, 1.0)
    assert [trial.params for trial in study.trials] == points
    assert len(points) == 4


def test_a_sampler_that_knows_no_conditions_still_proposes_what_the_space_holds() -> None:
    space = build_space({"optimizer": ["adamw", "sgd"], "seed": [0, 1, 2]}, ARMS, {})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    proposals = SamplerProposer(study, space, SamplerPair(study.sampler))
    found = []
    while (proposed := proposals.next(study.trials)) is not None:
        trial, params = proposed
        study.tell(trial, 1.0)
        found.append(params)
    assert all(space.contains(params) for params in found)
    assert len({params_key(params) for params in found}) == len(found) == space.size() == 12


def test_a_list_here_and_a_range_there_under_one_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lr is of one kind under a=1 and of another under a=2"):
        build_space({"a": [1, 2]}, {"a=1": {"lr": [1, 2]}, "a=2": {"lr": "interval(1e-5,1e-1)"}}, {})
