"""A length limit takes the prompt, never the answer, unless the user says so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunelab.data.examples import IGNORE
from tunelab.data.truncation import TOO_LONG_CHOICES, count_supervised, truncate_example
from tunelab.errors import DataError

BOS = 1


def test_a_long_prompt_gives_way_to_the_answer() -> None:
    short = truncate_example([2, 3, 4, 8, 9], [IGNORE, IGNORE, IGNORE, 8, 9], limit=4, too_long="truncate_prompt")

    assert short == ([3, 4, 8, 9], [IGNORE, IGNORE, 8, 9])


def test_the_begin_token_survives_the_cut() -> None:
    short = truncate_example(
        [BOS, 2, 3, 4, 8, 9], [IGNORE, IGNORE, IGNORE, IGNORE, 8, 9], limit=4, too_long="truncate_prompt", bos=BOS
    )

    assert short == ([BOS, 4, 8, 9], [IGNORE, IGNORE, 8, 9])


def test_earlier_answers_stay_when_prompts_are_cut() -> None:
    ids, labels = [2, 3, 8, 4, 5, 9], [IGNORE, IGNORE, 8, IGNORE, IGNORE, 9]

    assert truncate_example(ids, labels, limit=5, too_long="truncate_prompt") == (
        [3, 8, 4, 5, 9],
        [IGNORE, 8, IGNORE, IGNORE, 9],
    )


@pytest.mark.parametrize(("limit", "why"), [(1, "the answer alone is longer"), (2, "no prompt would be left")])
def test_an_answer_that_cannot_be_kept_with_its_prompt_drops_the_record(limit: int, why: str) -> None:
    assert truncate_example([2, 3, 8, 9], [IGNORE, IGNORE, 8, 9], limit=limit, too_long="truncate_prompt") is None, why


def test_truncate_answer_keeps_the_beginning() -> None:
    short = truncate_example([2, 3, 8, 9, 7], [IGNORE, IGNORE, 8, 9, 7], limit=4, too_long="truncate_answer")

    assert short == ([2, 3, 8, 9], [IGNORE, IGNORE, 8, 9])


def test_a_cut_that_leaves_only_the_prompt_drops_the_record() -> None:
    # the bug that trained on rows of pure IGNORE, and logged NaN or 0.0 for them
    assert truncate_example([2, 3, 4, 8], [IGNORE, IGNORE, IGNORE, 8], limit=3, too_long="truncate_answer") is None


def test_error_names_both_lengths_and_a_way_out() -> None:
    with pytest.raises(DataError, match=r"4 tokens long and the limit is 3.*data\.max_tokens"):
        truncate_example([2, 3, 8, 9], [IGNORE, IGNORE, 8, 9], limit=3, too_long="error")


@pytest.mark.parametrize("too_long", TOO_LONG_CHOICES)
@pytest.mark.parametrize("limit", [4, None])
def test_what_fits_is_left_alone(too_long: str, limit: int | None) -> None:
    ids, labels = [2, 3, 8, 9], [IGNORE, IGNORE, 8, 9]

    assert truncate_example(ids, labels, limit=limit, too_long=too_long) == (ids, labels)


@pytest.mark.parametrize("too_long", TOO_LONG_CHOICES)
def test_a_record_that_teaches_nothing_is_dropped_at_any_length(too_long: str) -> None:
    assert truncate_example([2, 3], [2, IGNORE], limit=9, too_long=too_long) is None


def test_an_unknown_choice_is_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match="known: drop"):
        truncate_example([2, 3], [2, 3], limit=9, too_long="truncate")


def test_the_first_label_is_never_counted() -> None:
    assert count_supervised([2, 3, IGNORE, 4]) == 2
    assert count_supervised([2]) == 0


records = st.lists(st.tuples(st.integers(2, 50), st.booleans()), min_size=1, max_size=30)


@given(records, st.integers(1, 30), st.sampled_from(["drop", "truncate_prompt", "truncate_answer"]), st.booleans())
def test_whatever_comes_out_fits_and_teaches(
    record: list[tuple[int, bool]], limit: int, too_long: str, begins: bool
) -> None:
    tokens = [token for token, _ in record]
    ids = [BOS, *tokens] if begins else tokens
    labels = [IGNORE] * begins + [token if learned else IGNORE for token, learned in record]

    short = truncate_example(ids, labels, limit=limit, too_long=too_long, bos=BOS)

    if short is None:
        return
    assert len(short[0]) == len(short[1]) <= limit
    assert all(label in (token, IGNORE) for token, label in zip(*short, strict=True))
    assert count_supervised(short[1]) > 0
    if begins:
        assert short[0][0] == BOS
    if too_long == "truncate_prompt":
        assert [label for label in short[1] if label != IGNORE] == [label for label in labels if label != IGNORE]
