"""A record's split is its own: other rows never move it, and equal contents share it."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from support.paths import ROOT
from tunelab.data.readers import read_records
from tunelab.data.splits import assign_splits, find_duplicates, split_share_warnings
from tunelab.errors import ConfigError

SHARED = (ROOT / "../shared/data").resolve()
CONTENTS = st.lists(st.text(max_size=6), max_size=30)
SHARES = st.sampled_from([(0.0, 0.0), (0.1, 0.1), (0.3, 0.2), (0.0, 0.5), (0.9, 0.05)])


@given(contents=CONTENTS, others=CONTENTS, shares=SHARES, seed=st.integers(), order=st.randoms())
def test_other_rows_never_move_a_row(
    contents: list[str], others: list[str], shares: tuple[float, float], seed: int, order: st.DataObject
) -> None:
    validation, test = shares
    before = dict(zip(contents, assign_splits(contents, validation=validation, test=test, seed=seed), strict=True))

    mixed = contents + others
    order.shuffle(mixed)  # type: ignore[attr-defined]
    after = dict(zip(mixed, assign_splits(mixed, validation=validation, test=test, seed=seed), strict=True))

    assert all(after[content] == side for content, side in before.items())


@settings(max_examples=50)
@given(contents=CONTENTS, shares=SHARES, seed=st.integers())
def test_no_duplicate_ever_stands_on_two_sides(contents: list[str], shares: tuple[float, float], seed: int) -> None:
    doubled = contents + [f"  {content}\n" for content in contents]
    sides = assign_splits(doubled, validation=shares[0], test=shares[1], seed=seed)

    splits = {side: [c for c, s in zip(doubled, sides, strict=True) if s == side] for side in set(sides)}

    found = find_duplicates(splits)
    assert not any(duplicate.crosses_splits for duplicate in found)
    assert bool(found) == bool(contents)


def test_a_larger_share_takes_rows_from_training_only() -> None:
    contents = [f"row {i}" for i in range(2000)]
    small = assign_splits(contents, validation=0.1, test=0.1, seed=0)

    more_validation = assign_splits(contents, validation=0.2, test=0.1, seed=0)
    more_test = assign_splits(contents, validation=0.1, test=0.2, seed=0)

    assert {(a, b) for a, b in zip(small, more_validation, strict=True) if a != b} == {("train", "validation")}
    assert all(b == "test" for a, b in zip(small, more_test, strict=True) if a == "test")


def test_shares_are_what_was_asked_for_and_independent_of_the_class() -> None:
    contents, classes = [f"row {i}" for i in range(20_000)], [i % 7 for i in range(20_000)]

    sides = assign_splits(contents, validation=0.1, test=0.2, seed=3)

    counts = Counter(sides)
    wanted = {"train": 14_000, "validation": 2_000, "test": 4_000}
    assert chisquare([counts[side] for side in wanted], list(wanted.values())).pvalue > 0.001
    table = [
        [sum(c == k and s == side for c, s in zip(classes, sides, strict=True)) for side in wanted] for k in range(7)
    ]
    assert chi2_contingency(table).pvalue > 0.001


def test_the_sides_of_known_rows_never_change_between_versions() -> None:
    sides = assign_splits([f"row {i}" for i in range(12)], validation=0.25, test=0.25, seed=0)

    assert "".join(side[0:2] for side in sides) == "tetetrtrtetetrtrvavatrva"


def test_another_seed_draws_other_sides() -> None:
    contents = [f"row {i}" for i in range(200)]

    assert assign_splits(contents, validation=0.3, test=0.3, seed=0) != assign_splits(
        contents, validation=0.3, test=0.3, seed=1
    )


@pytest.mark.parametrize(
    ("validation", "test", "message"),
    [
        (-0.1, 0.1, "data.split.validation=-0.1"),
        (0.1, 1.0, "data.split.test=1.0"),
        (float("nan"), 2.0, "(?s)data.split.validation=nan.*data.split.test=2.0"),
        (0.5, 0.5, "sum to 1, which leaves no training rows"),
    ],
)
def test_shares_that_cannot_be_honoured_are_refused(validation: float, test: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        assign_splits(["a"], validation=validation, test=test, seed=0)


def test_a_class_without_a_row_in_a_split_is_told() -> None:
    sides = ["train"] * 9 + ["validation"] + ["train"] * 3
    strata = ["big"] * 10 + ["rare"] * 3

    assert split_share_warnings(sides, strata, validation=0.1, test=0.0) == [
        "class 'rare' (3 rows) has no row in validation; try another seed or more rows"
    ]


def test_a_share_that_chance_does_not_explain_is_told() -> None:
    fair = split_share_warnings(["train"] * 800 + ["test"] * 200, [None] * 1000, validation=0.0, test=0.2)
    unfair = split_share_warnings(["train"] * 700 + ["test"] * 300, [None] * 1000, validation=0.0, test=0.2)

    assert fair == []
    assert len(unfair) == 1
    assert "300 of its 1000 rows in test, 200 would be fair" in unfair[0]


def test_duplicates_are_counted_across_and_within_splits() -> None:
    found = find_duplicates(
        {"train": ["a b", "c", "a\n b ", "d"], "test": ["\uff41 b", "e", "D"]}
    )  # the first a is a wide one

    assert [(one.content, one.rows_by_split) for one in found] == [("a b", {"train": [0, 2], "test": [0]})]
    assert found[0].crosses_splits
    assert found[0].extra_rows == 1


def test_duplicates_within_one_split_do_not_cross() -> None:
    (found,) = find_duplicates({"train": ["x", "x", "x"], "test": ["y"]})

    assert not found.crosses_splits
    assert found.extra_rows == 2


def test_composed_and_decomposed_letters_are_equal_but_case_is_not() -> None:
    assert len(find_duplicates({"train": ["caf\u00e9"], "test": ["cafe\u0301"]})) == 1
    assert find_duplicates({"train": ["US"], "test": ["us"]}) == []


def test_the_leak_of_a_real_data_set_is_found() -> None:
    if not SHARED.exists():
        pytest.skip("needs the real data beside the checkout")
    texts = {
        s: [row["text"] for row in read_records(str(SHARED / f"goemotions/{s}.jsonl")).rows] for s in ("train", "test")
    }

    found = [one for one in find_duplicates(texts) if one.crosses_splits]

    assert sum(len(one.rows_by_split["test"]) for one in found) == 18  # rows, as the notes beside the data say
    assert {one.content for one in found} >= {" ".join(t.split()) for t in set(texts["train"]) & set(texts["test"])}
