"""Read a record for its question alone: what a trained model is asked, where there is no answer yet.  Pure."""

from collections.abc import Mapping
from typing import Any, Final

from tunelab.data.columns import Row
from tunelab.data.conversation import Conversation
from tunelab.data.formats import AS_NAMED, SPEAKERS, to_conversation
from tunelab.errors import DataError

STAND_IN: Final = "?"  # an answer where a format asks for one; it is cut off again and never reaches a model
ASKED_IN: Final = {  # format -> the column that holds what is asked
    "alpaca": "instruction",
    "prompt_completion": "prompt",
    "messages": "messages",
    "sharegpt": "conversations",
    "text": "text",
}
ANSWERED_IN: Final = {"alpaca": "output", "prompt_completion": "completion"}


def question_of(record: Mapping[str, Any], format: str, columns: Mapping[str, str] = AS_NAMED) -> Conversation | str:
    """The turns a model is to answer; for plain text, the text it is to go on with.

    An answer that the record holds already is left out: the last turn of the assistant, if nothing follows it.

    Args:
        record: One line of the user's data.
        format: The format the model learned from, or "auto".  A record without its columns may have another one's.
        columns: Our name of a column -> the user's name of it.

    Raises:
        DataError: If the record asks nothing, or what it asks is empty or no text.

    Example:
        >>> question_of({"prompt": "2+2?"}, "auto").messages[0].content
        '2+2?'
    """
    row = Row(record, columns)
    fitting = [name for name in dict.fromkeys([format, *ASKED_IN]) if name in ASKED_IN and row.has(ASKED_IN[name])]
    if not fitting:
        known = ", ".join(dict.fromkeys(row.name(asked) for asked in ASKED_IN.values()))
        seen = ", ".join(map(str, record)) or "none"
        raise DataError(f"no column holds a question; it is looked for in {known}, and there is {seen}")
    format = fitting[0]
    placed = {ANSWERED_IN.get(format), "messages", "conversations"}  # these stand under our own name by now
    own = {ours: theirs for ours, theirs in columns.items() if ours not in placed}
    read = to_conversation(with_stand_in(row, format), format, own)
    if isinstance(read, str):
        return read
    asked = read.messages[: read.last_answer()]
    if not asked:
        raise DataError("nothing comes before the first answer, so nothing is asked")
    return Conversation(asked, read.tools, read.meta)


def with_stand_in(row: Row, format: str) -> dict[str, Any]:
    """The record with an answer in the place where `format` asks for one."""
    record = dict(row.record)
    if answer := ANSWERED_IN.get(format):
        return {**record, answer: STAND_IN}
    if format not in ("messages", "sharegpt"):
        return record
    said, text = ("role", "content") if format == "messages" else ("from", "value")
    turns = row.value(ASKED_IN[format])
    if isinstance(turns, list | tuple) and turns:
        last = turns[-1].get(said) if isinstance(turns[-1], Mapping) else None
        if SPEAKERS.get(str(last)) != "assistant":
            turns = [*turns, {said: "assistant", text: STAND_IN}]
        record[ASKED_IN[format]] = turns  # under our name too, which a way into the record may not lead to
    return record
