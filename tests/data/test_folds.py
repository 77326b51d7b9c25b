"""Folds keep what scikit-learn's keep: each row validated once, labels spread evenly, groups whole."""

from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold

from support.tiny_runs import settings
from tunelab.data.folds import FoldSpec, assign_folds, number_groups
from tunelab.errors import ConfigError, DataError


def dealt(labels: list[str], folds: int, sets: list[int] | None = None, seed: int = 0) -> list[int]:
    """The fold of each row; rows stand alone unless sets are given."""
    draw = Random(seed)
    order = [draw.random() for _ in labels]
    strata = [[label] if label else [] for label in labels]
    return assign_folds(sets or list(range(len(labels))), strata, order, folds=folds)


def unevenness(found: list[int], labels: list[str], folds: int) -> float:
    """Standard deviation of each label's share over the folds, the mean of all labels."""
    totals, held = Counter(labels), Counter(zip(labels, found, strict=True))
    return float(np.mean([np.std([held[label, fold] / totals[label] for fold in range(folds)]) for label in totals]))


@with_settings(max_examples=60)
@given(st.data())
def test_single_rows_of_each_label_and_of_all_differ_by_one_at_most(data: st.DataObject) -> None:
    folds = data.draw(st.integers(2, 7))
    counts = data.draw(st.lists(st.integers(folds, 40), min_size=1, max_size=5))
    labels = [f"label {number}" for number, count in enumerate(counts) for _ in range(count)]
    Random(data.draw(st.integers(0, 99))).shuffle(labels)

    found = dealt(labels, folds)

    ours = Counter(zip(found, labels, strict=True))
    theirs = [
        Counter(labels[row] for row in validation)
        for _, validation in StratifiedKFold(folds, shuffle=True, random_state=0).split(labels, labels)
    ]
    for label in set(labels):  # as many rows of a label as scikit-learn's folds have, whichever fold has which
        assert sorted(ours[fold, label] for fold in range(folds)) == sorted(fold[label] for fold in theirs)
    sizes = sorted(Counter(found).values())
    assert sizes == sorted(len(validation) for _, validation in KFold(folds).split(labels))


def test_rows_without_labels_are_dealt_like_those_of_plain_folds() -> None:
    for rows in range(5, 40):
        found = dealt([""] * rows, 5)
        assert sorted(Counter(found).values()) == sorted(len(v) for _, v in KFold(5).split(range(rows)))


def test_groups_stay_whole_and_labels_are_as_even_as_scikit_learn_has_them() -> None:
    ours, theirs = [], []
    for seed in range(10):
        draw = Random(seed)
        groups = [draw.randrange(60) for _ in range(600)]
        leaning = {group: draw.choice("abc") for group in range(60)}
        labels = [leaning[group] if draw.random() < 0.6 else draw.choice("abc") for group in groups]

        found = dealt(labels, 5, number_groups(groups), seed)

        assert len(set(zip(groups, found, strict=True))) == len(set(groups))  # no group in two folds
        sizes = Counter(found).values()
        assert len(sizes) == 5 and max(sizes) - min(sizes) <= 15  # a group has ten rows
        other = [0] * len(labels)
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        for fold, (_, validation) in enumerate(splitter.split(labels, labels, groups)):
            for row in validation:
                other[row] = fold
        ours.append(unevenness(found, labels, 5))
        theirs.append(unevenness(other, labels, 5))
    assert np.mean(ours) <= 1.1 * np.mean(theirs)


def test_several_labels_of_a_text_are_spread_too() -> None:
    draw = Random(0)
    strata = [[name for name in "abcd" if draw.random() < share] for share in [0.4] * 200]
    found = assign_folds(range(200), strata, [draw.random() for _ in strata], folds=4)

    for name in "abcd":
        held = Counter(fold for fold, names in zip(found, strata, strict=True) if name in names)
        assert max(held.values()) - min(held.values()) <= 3


def test_rows_are_tied_over_several_steps() -> None:
    assert number_groups(["a", "b", "c", "d"], [1, 1, 2, 3], ["x", "y", "y", "z"]) == [0, 0, 0, 1]


def test_the_order_of_rows_does_not_matter_and_another_seed_does() -> None:
    draw = Random(1)
    order = [draw.random() for _ in range(50)]
    labels = [["x"] if place % 3 else ["y"] for place in range(50)]
    found = assign_folds(range(50), labels, order, folds=5)
    turned = assign_folds(range(50), labels[::-1], order[::-1], folds=5)

    assert turned[::-1] == found
    assert assign_folds(range(50), labels, order[25:] + order[:25], folds=5) != found


def test_folds_that_cannot_be_filled_are_refused() -> None:
    with pytest.raises(DataError, match="folds=5 needs as many rows or groups .* there are 4"):
        dealt(["a"] * 4, 5)
    with pytest.raises(DataError, match="'rare' are one text or one group"):
        dealt(["common"] * 9 + ["rare"], 5)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["cv.folds=1"], "cv.folds=1 is out of range"),
        (["cv.folds=2.5"], "cv.folds=2.5 counts"),
        (["cv.folds=5", "cv.fold=5"], "count from 0, so the last one is 4"),
        (["cv.group=author"], "cv.group=author without cv.folds"),
        (["cv.folds=5", "trial.id=3"], "inside a search"),
        (["+cv.group_by=author"], "cv.group_by is no setting; did you mean 'group'"),
    ],
)
def test_a_faulty_block_is_refused(given: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        settings(*given)


def test_a_run_without_folds_is_no_turn() -> None:
    assert FoldSpec.from_config(settings().cv) is None and FoldSpec.from_config(settings("cv.folds=5").cv) is None
    assert FoldSpec.from_config(settings("cv.folds=5", "cv.fold=2", "cv.group=author").cv) == FoldSpec(2, 5, "author")
