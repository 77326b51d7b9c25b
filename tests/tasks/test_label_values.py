"""Label values as people write them."""

import doctest

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from tunelab.errors import ConfigError, DataError
from tunelab.tasks import classification
from tunelab.tasks.classification import (
    balanced_weights,
    explicit_weights,
    parse_label,
    parse_labels,
    sort_labels,
    unknown_label_message,
)


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(classification).failed == 0
    assert doctest.testmod(classification).attempted > 0


def test_one_label_has_one_name_however_it_is_written():
    assert parse_label(1) == parse_label("1") == parse_label(1.0) == parse_label(" 1 ") == "1"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "empty"),
        ("  ", "empty"),
        (float("nan"), "empty"),
        (0.5, "data=regression"),
        (["a"], "data.multilabel=true"),
        ({"a": 1}, "empty"),
    ],
)
def test_a_value_that_is_no_label_says_what_to_do(value, said):
    with pytest.raises(DataError, match=said):
        parse_label(value)


def test_lists_of_labels_may_be_json_text_and_may_be_empty():
    assert parse_labels('["joy", 1]') == parse_labels(("joy", "1")) == ["joy", "1"]
    assert parse_labels([]) == parse_labels("[]") == []


@pytest.mark.parametrize("value", ["joy", "joy;fear", "1", None, {"joy": 1}])
def test_a_cell_that_is_no_list_is_refused_in_a_multilabel_column(value):
    with pytest.raises(DataError, match="not a list"):
        parse_labels(value)


def test_a_vector_of_zeros_and_ones_is_not_taken_for_labels():
    with pytest.raises(DataError, match="0 or 1 per class"):
        parse_labels([0, 1, 0])


def test_whole_numbers_sort_by_value_and_names_as_text():
    assert sort_labels({"10", "2", "0"}) == ["0", "2", "10"]
    assert sort_labels({"10", "2", "b"}) == ["10", "2", "b"]


def test_an_unknown_label_names_the_closest_known_one_first():
    message = unknown_label_message("card_arival", ["atm", *[f"zone_{n}" for n in range(20)], "card_arrival"])
    assert "did you mean 'card_arrival'?" in message
    assert message.index("'card_arrival', 'atm'") > 0
    assert "and 10 more" in message


def test_balanced_weights_are_those_of_scikit_learn():
    rows = ["a"] * 7 + ["b"] * 2 + ["c"]
    wanted = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=rows)
    assert balanced_weights([7, 2, 1], 10) == pytest.approx(wanted.tolist())


def test_named_weights_find_their_label_and_all_faults_are_told_at_once():
    assert explicit_weights({1: 3, "b": 0.5}, ["1", "a", "b"]) == [3.0, 1.0, 0.5]
    with pytest.raises(ConfigError) as caught:
        explicit_weights({"x": 1, "a": 0, "b": True, "1": float("nan")}, ["1", "a", "b"])
    assert all(part in str(caught.value) for part in ("'x'", "class_weights.a", "class_weights.b", "class_weights.1"))
