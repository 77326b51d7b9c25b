"""Read a record in any of the known layouts as a conversation.  Pure: mappings in, plain values out.

Texts are taken over untouched: nothing is stripped, formatted or interpolated.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from types import MappingProxyType
from typing import Any, Final

from tunelab.data.columns import Row, checked_text, shown
from tunelab.data.conversation import ROLES, Conversation, Message
from tunelab.data.tool_calls import calls_from_text, read_calls, read_tools
from tunelab.errors import DataError

__all__ = ["FORMATS", "Conversation", "Format", "Message", "Row", "detect", "to_conversation"]

META: Final = (
    "id",
    "source",
    "family",
    "category",
    "choices",
    "label",
)  # taken along for reports, never shown to the model
AS_NAMED: Final[Mapping[str, str]] = MappingProxyType({})
NO_ANSWER: Final = "a record without an answer teaches nothing, drop it"
NO_PROMPT: Final = "an answer without a question teaches nothing about questions, drop it or use data.format=text"


def _alpaca(row: Row) -> Conversation:
    answer = "output"
    if not row.has("output") and "output" not in row.columns and row.has("response"):
        answer = "response"
    prompt = row.text("instruction", NO_PROMPT)
    if extra := row.optional("input"):
        prompt = f"{prompt}\n\n{extra}"
    return _pair(row, prompt, row.text(answer, NO_ANSWER))


def _prompt_completion(row: Row) -> Conversation:
    return _pair(row, row.text("prompt", NO_PROMPT), row.text("completion", NO_ANSWER))


def _pair(row: Row, prompt: str, answer: str) -> Conversation:
    return Conversation((Message("user", prompt), Message("assistant", answer)), None, _meta(row))


def _messages(row: Row) -> Conversation:
    turns = [_turn(turn, ROLE_NAMES, "role", "content") for turn in _turns(row, "messages")]
    return _conversation(row, turns)


def _sharegpt(row: Row) -> Conversation:
    turns = [_turn(turn, SPEAKERS, "from", "value") for turn in _turns(row, "conversations")]
    if system := row.optional("system"):
        turns.insert(0, Message("system", system))
    return _conversation(row, turns)


ROLE_NAMES: Final = {role: role for role in ROLES} | {"developer": "system"}
SPEAKERS: Final = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "system": "system",
    "observation": "tool",
    "tool": "tool",
}


TAKEN_ALONG: Final = ("name", "tool_call_id")  # keys of a turn that some templates read
UNREAD: Final = ("function_call", "reasoning_content", "reasoning", "thinking")  # texts that would go missing


def _turns(row: Row, ours: str) -> list[Any]:
    turns, name = row.value(ours), row.name(ours)
    if not row.has(ours):
        row.text(ours, NO_ANSWER)  # raises, and lists the columns
    if not isinstance(turns, list | tuple) or not turns:
        got = "empty" if isinstance(turns, list | tuple) else type(turns).__name__
        raise DataError(f"'{name}' is {got}; a conversation is a list of turns, oldest first")
    return list(turns)


def _turn(turn: Any, roles: Mapping[str, str], role_key: str, text_key: str) -> Message:
    if not isinstance(turn, Mapping) or role_key not in turn:
        seen = f"keys {', '.join(map(str, turn))}" if isinstance(turn, Mapping) else type(turn).__name__
        raise DataError(f"a turn is {{{role_key}, {text_key}}}, got {seen}")
    said_by = turn[role_key]
    if not isinstance(said_by, str) or said_by not in roles:
        raise DataError(f"a turn is from {shown(said_by)!r}; known: {', '.join(roles)}")
    role, value, calls = roles[said_by], turn.get(text_key), read_calls(turn.get("tool_calls"))
    if lost := [key for key in UNREAD if turn.get(key)] + (["tool_calls"] if calls and role != "assistant" else []):
        raise DataError(
            f"{', '.join(lost)} of the {said_by} turn would be lost: no template is given it; write what the model "
            f"shall see or say into '{text_key}', calls of an assistant turn into 'tool_calls'"
        )
    why = None if calls or role in ("system", "tool") else f"each {role} turn says something; drop the record"
    content = checked_text(value, f"{text_key} of the {said_by} turn", why)
    if said_by == "function_call" and (calls := calls_from_text(content)):
        content = ""
    more = {key: turn[key] for key in TAKEN_ALONG if isinstance(turn.get(key), str)}
    return Message(role, content, _learned(turn), calls, more)


def _learned(turn: Mapping[str, Any]) -> bool:
    """Whether a turn is learned: `train: false` and `weight: 0`, another spelling of it, say no."""
    train, weight = turn.get("train"), turn.get("weight")
    if train is not None and not isinstance(train, bool):
        raise DataError(f"'train' of a turn is {shown(train)!r}; write true or false")
    if weight is not None and (isinstance(weight, bool) or not isinstance(weight, int | float) or weight not in (0, 1)):
        raise DataError(f"'weight' of a turn is {shown(weight)!r}; only 0 (not learned) and 1 (learned) are known")
    return train is not False and weight != 0


def _conversation(row: Row, turns: list[Message]) -> Conversation:
    kept = tuple(turn for turn in turns if turn.role != "system" or turn.content.strip())
    if not any(turn.role == "assistant" for turn in kept):
        raise DataError("there is no assistant turn; " + NO_ANSWER)
    return Conversation(kept, read_tools(row.value("tools")), _meta(row))


def _text(row: Row) -> str:
    return row.text("text", "an empty text teaches nothing, drop it")


def _meta(row: Row) -> dict[str, Any]:
    return {name: row.value(name) for name in META if row.has(name)}


@dataclass(frozen=True, slots=True)
class Format:
    """One layout of records.

    Attributes:
        read: Turns a row into a conversation, or into plain text.
        needs: Columns that tell the format; each entry lists names of which one must be there.
        takes: Columns that may be there besides.
    """

    read: Callable[[Row], Conversation | str]
    needs: tuple[tuple[str, ...], ...]
    takes: tuple[str, ...] = ()

    def describe(self) -> str:
        """Its columns, for messages."""
        needed = ["/".join(names) for names in self.needs]
        return ", ".join(needed + [f"[{name}]" for name in self.takes])


FORMATS: Final[Mapping[str, Format]] = MappingProxyType(
    {
        "messages": Format(_messages, (("messages",),), ("tools",)),
        "sharegpt": Format(_sharegpt, (("conversations",),), ("system", "tools")),
        "alpaca": Format(_alpaca, (("instruction",), ("output", "response")), ("input",)),
        "prompt_completion": Format(_prompt_completion, (("prompt",), ("completion",))),
        "text": Format(_text, (("text",),)),
    }
)


def detect(columns: Collection[str], renamed: Mapping[str, str] = AS_NAMED) -> str:
    """Tell the format from the column names; the first of `FORMATS` whose columns are all there.

    Args:
        columns: Names the records have.
        renamed: Our name -> the user's name (`data.columns`).

    Raises:
        DataError: If no format fits; the message lists what was seen, what is known, and the closest.

    Example:
        >>> detect(["question", "answer"], {"prompt": "question", "completion": "answer"})
        'prompt_completion'
    """
    seen = set(columns) | {
        ours for ours, theirs in renamed.items() if theirs in columns or theirs.partition(".")[0] in columns
    }
    for name, form in FORMATS.items():
        if all(seen.intersection(names) for names in form.needs):
            return name
    closest = max(FORMATS, key=lambda name: _likeness(FORMATS[name], columns))
    known = "; ".join(f"{name} ({form.describe()})" for name, form in FORMATS.items())
    rename = " ".join(f"data.columns.{names[0]}=..." for names in FORMATS[closest].needs if not seen & set(names))
    raise DataError(
        f"the columns {', '.join(sorted(map(str, columns))) or '(none)'} fit no format; known: {known}; "
        f"closest: {closest}; name your columns: data.format={closest} {rename}"
    )


def _likeness(form: Format, columns: Collection[str]) -> float:
    """How well the columns fit, from 0 to 1: the mean over the needed columns of the best match of each."""
    best = [
        max((SequenceMatcher(None, name, str(column)).ratio() for name in names for column in columns), default=0.0)
        for names in form.needs
    ]
    return sum(best) / len(best)


def to_conversation(
    record: Mapping[str, Any], format: str, columns: Mapping[str, str] = AS_NAMED
) -> Conversation | str:
    """Read one record.

    Args:
        record: One line of the user's data.
        format: A name in `FORMATS`.
        columns: Our name of a column -> the user's name of it, for those that differ.

    Returns:
        The conversation; for the format "text", the text itself.

    Raises:
        DataError: If a column is missing, empty or not text, or the format is unknown.

    Example:
        >>> to_conversation({"question": "2+2?", "answer": "4"}, "prompt_completion",
        ...                 {"prompt": "question", "completion": "answer"}).messages[1].content
        '4'
    """
    if format not in FORMATS:
        raise DataError(f"data.format is {format!r}; known: auto, {', '.join(FORMATS)}")
    return FORMATS[format].read(Row(record, columns))
