"""Pairs of answers in every layout that is known, and what is refused."""

import pytest

from tunelab.data.preference_pairs import to_preference_pair
from tunelab.errors import DataError

USER = {"role": "user", "content": "Name a colour"}
RED, BLUE = {"role": "assistant", "content": "Red"}, {"role": "assistant", "content": "Blue"}
SYSTEM = {"role": "system", "content": "Be brief"}


def said(talk) -> list[tuple[str, str, bool]]:
    return [(turn.role, turn.content, turn.train) for turn in talk.messages]


LAYOUTS = {
    "texts": {"prompt": "Name a colour", "chosen": "Red", "rejected": "Blue"},
    "messages": {"prompt": [USER], "chosen": [RED], "rejected": [BLUE]},
    "messages after a text": {"prompt": "Name a colour", "chosen": [RED], "rejected": [BLUE]},
    "texts after messages": {"prompt": [USER], "chosen": "Red", "rejected": "Blue"},
    "whole conversations": {"chosen": [USER, RED], "rejected": [USER, BLUE]},
    "whole conversations beside their prompt": {
        "prompt": "Name a colour", "chosen": [USER, RED], "rejected": [USER, BLUE],
    },
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_says_the_same(layout: str) -> None:
    pair = to_preference_pair(LAYOUTS[layout])

    assert said(pair.chosen) == [("user", "Name a colour", False), ("assistant", "Red", True)]
    assert said(pair.rejected) == [("user", "Name a colour", False), ("assistant", "Blue", True)]
    assert [turn.content for turn in pair.prompt] == ["Name a colour"]


def test_earlier_answers_belong_to_the_prompt_and_are_not_learned() -> None:
    before = [SYSTEM, USER, RED, {"role": "user", "content": "Another"}]
    green = {"role": "assistant", "content": "Green"}

    pair = to_preference_pair({"chosen": [*before, BLUE], "rejected": [*before, green]})

    assert [turn.content for turn in pair.prompt] == ["Be brief", "Name a colour", "Red", "Another"]
    assert [turn.train for turn in pair.chosen.messages] == [False] * 4 + [True]


def test_a_system_turn_may_stand_before_the_repeated_prompt() -> None:
    pair = to_preference_pair(
        {"prompt": "Name a colour", "chosen": [SYSTEM, USER, RED], "rejected": [SYSTEM, USER, BLUE]}
    )

    assert [turn.role for turn in pair.chosen.messages] == ["system", "user", "assistant"]


def test_equal_answers_still_part_at_the_last_one() -> None:
    # the task refuses them with the place of the record; reading alone must not fall over
    pair = to_preference_pair({"prompt": "Name a colour", "chosen": "Red", "rejected": "Red"})

    assert said(pair.chosen) == said(pair.rejected)
    assert len(pair.prompt) == 1


def test_columns_may_have_other_names() -> None:
    record = {"question": "Name a colour", "better": "Red", "worse": "Blue"}

    pair = to_preference_pair(record, {"prompt": "question", "chosen": "better", "rejected": "worse"})

    assert pair.rejected.messages[-1].content == "Blue"


REFUSED = {
    "no rejected column": ({"prompt": "a", "chosen": "b"}, "'rejected' is missing.*data.columns.rejected"),
    "an empty answer": ({"prompt": "a", "chosen": " ", "rejected": "b"}, "'chosen' is empty"),
    "an empty prompt": ({"prompt": "", "chosen": "b", "rejected": "c"}, "'prompt' is empty"),
    "a number": ({"prompt": "a", "chosen": 3, "rejected": "c"}, "'chosen' is int, not text"),
    "texts without a prompt": ({"chosen": "b", "rejected": "c"}, "no 'prompt'"),
    "two prompts": (
        {"chosen": [USER, RED], "rejected": [{"role": "user", "content": "Name a fruit"}, BLUE]},
        "part at a user turn",
    ),
    "a prompt that is not theirs": (
        {"prompt": "Name a fruit", "chosen": [USER, RED], "rejected": [USER, BLUE]},
        "does not hold 'prompt'",
    ),
    "no answer at the end": ({"chosen": [USER, RED, USER], "rejected": [USER, BLUE]}, "must end with an answer"),
    "an unknown role": (
        {"prompt": "a", "chosen": [{"role": "judge", "content": "x"}], "rejected": [BLUE]},
        "'chosen': a turn is from 'judge'",
    ),
    "no turns": ({"prompt": "a", "chosen": [], "rejected": [BLUE]}, "'chosen' is empty"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_pair_is_refused_with_a_way_out(case: str) -> None:
    record, told = REFUSED[case]

    with pytest.raises(DataError, match=told):
        to_preference_pair(record)
