"""Preference pairs: a record as two conversations, chosen and rejected, that share their prompt.  Pure.

Three layouts are known: prompt, chosen and rejected as texts; the prompt as text or messages with answers as messages;
chosen and rejected as whole conversations that share their beginning.  Turns of `system` and `history` come first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from tunelab.data.columns import ColumnView
from tunelab.data.conversation import Conversation, Message
from tunelab.data.formats import (
    LEADING_COLUMNS,
    NO_RENAMES,
    RecordFormat,
    named_input,
    parse_turns,
    prompt_with_input,
    to_conversation,
)
from tunelab.errors import DataError
from tunelab.language.translation import translate

PAIR_SIDES = ("chosen", "rejected")


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A better and a worse way to go on from one prompt.

    Attributes:
        prompt: The turns that both share.
        chosen: Prompt and better answer; only the turns after the prompt are learned.
        rejected: Prompt and worse answer.
    """

    prompt: tuple[Message, ...]
    chosen: Conversation
    rejected: Conversation


def to_preference_pair(record: Mapping[str, Any], columns: Mapping[str, str] = NO_RENAMES) -> PreferencePair:
    """Read one record.

    Args:
        record: One line of the user's data.
        columns: Our name of a column -> the user's name of it, for those that differ.

    Raises:
        DataError: If a column is missing or empty, or the two do not answer the same prompt.

    Example:
        >>> to_preference_pair({"prompt": "2+2?", "chosen": "4", "rejected": "5"}).rejected.messages[1].content
        '5'
    """
    row = ColumnView(record, columns)
    prompt = _prompt_turns(row)
    chosen, rejected = (_read_side(row, side, prompt) for side in PAIR_SIDES)
    for side, talk in zip(PAIR_SIDES, (chosen, rejected), strict=True):
        if talk.messages[-1].role != "assistant":
            raise DataError(
                translate(
                    "'{name}' ends with a {role} turn; it must end with an answer",
                    name=row.user_name(side),
                    role=talk.messages[-1].role,
                )
            )
    both = list(zip(chosen.messages[:-1], rejected.messages[:-1], strict=False))
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], both))
    for talk in (chosen, rejected):
        if not shared or talk.messages[shared].role != "assistant":
            raise DataError(
                translate(
                    "'{name}' and '{other}' part at a {role} turn (turn {shared}), so they do "
                    "not answer the same prompt; pair answers to one prompt",
                    name=row.user_name("chosen"),
                    other=row.user_name("rejected"),
                    role=talk.messages[shared].role,
                    shared=shared + 1,
                )
            )
    return PreferencePair(chosen.messages[:shared], *(_train_only_after(talk, shared) for talk in (chosen, rejected)))


def _prompt_turns(row: ColumnView) -> list[Any] | None:
    """The turns of the prompt column; None where there is none."""
    prompt = parse_turns(row.value("prompt"))
    if prompt is None:
        return None
    if isinstance(prompt, list | tuple):
        if not prompt:
            raise DataError(translate("'{name}' is empty; drop the record", name=row.user_name("prompt")))
        return list(prompt)
    text = prompt_with_input(
        row.text("prompt", translate("an answer needs a question, drop the record")), named_input(row)
    )
    return [{"role": "user", "content": text}]


def _read_side(row: ColumnView, side: str, prompt: list[Any] | None) -> Conversation:
    """One whole conversation: the answer after its prompt, unless it brings the prompt along."""
    name, answer = row.user_name(side), parse_turns(row.value(side))
    if isinstance(answer, list | tuple):
        turns = list(answer)
        if not turns:
            raise DataError(translate("'{name}' is empty; a pair needs two answers, drop it", name=name))
        if prompt and not _contains_prompt(turns, prompt):
            if _turn_role(turns[0]) in ("system", "developer", "user") and _turn_role(prompt[-1]) == "user":
                raise DataError(
                    translate(
                        "'{name}' starts with a {turns} turn and does not hold '{prompt}', so it is "
                        "unclear what is answered; leave one of the two out",
                        name=name,
                        turns=_turn_role(turns[0]),
                        prompt=row.user_name("prompt"),
                    )
                )
            turns = [*prompt, *turns]
    else:
        text = row.text(side, translate("a pair needs two answers, drop it"))
        if prompt is None:
            raise DataError(
                translate(
                    "'{name}' is text and there is no '{prompt}'; give the prompt as its own column, "
                    "or write '{name}' as a list of messages",
                    name=name,
                    prompt=row.user_name("prompt"),
                )
            )
        turns = [*prompt, {"role": "assistant", "content": text}]
    try:
        leading = {name: row.value(name) for name in ("tools", *LEADING_COLUMNS)}
        talk = to_conversation({"messages": turns, **leading}, "messages")
    except DataError as fault:
        raise DataError(f"'{name}': {fault}") from None
    assert isinstance(talk, Conversation)
    return talk


def _contains_prompt(turns: list[Any], prompt: list[Any]) -> bool:
    """Whether a conversation has the prompt in it already: at its start, or (one question) after a system turn."""
    spoken, prompt_part = ([(_turn_role(turn), _turn_content(turn)) for turn in part] for part in (turns, prompt))
    if spoken[: len(prompt_part)] == prompt_part:
        return True
    return len(prompt_part) == 1 and _turn_role(turns[0]) in ("system", "developer") and spoken[1:2] == prompt_part


def _turn_role(turn: Any) -> Any:
    return turn.get("role") if isinstance(turn, Mapping) else None


def _turn_content(turn: Any) -> Any:
    return turn.get("content") if isinstance(turn, Mapping) else turn


def _train_only_after(talk: Conversation, shared: int) -> Conversation:
    """The conversation with nothing learned of its first `shared` turns."""
    kept = [replace(message, train=False) for message in talk.messages[:shared]]
    return replace(talk, messages=(*kept, *talk.messages[shared:]))


PAIR_FORMAT = RecordFormat(
    lambda row: to_preference_pair(row.record, row.columns).chosen,
    (("chosen",), ("rejected",)),
    ("prompt", "tools", *LEADING_COLUMNS),
    when_named=("input",),
    prompt="prompt",
)
