"""Record formats (messages, sharegpt, alpaca, prompt_completion, text), each read as a conversation.  Pure.

Texts are taken over untouched: nothing is stripped, formatted or interpolated.  A record may also be read for its
question alone, where there is no answer yet, and a source of a mixture be brought to the columns of the run.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from types import MappingProxyType
from typing import Any, Final

from tunelab.data.columns import MISSING, ColumnView, lookup_path, preview_value, require_text
from tunelab.data.conversation import (
    JSON_ERRORS,
    ROLES,
    Conversation,
    Message,
    calls_from_text,
    read_calls,
    read_tools,
)
from tunelab.errors import ConfigError, DataError
from tunelab.language.translation import message, translate

META_COLUMNS: Final = (
    "id",
    "source",
    "family",
    "category",
    "choices",
    "label",
)  # taken along for reports, never shown to the model
LEADING_COLUMNS: Final = ("system", "history")  # of turns that come before those of the record
NO_RENAMES: Final[Mapping[str, str]] = MappingProxyType({})
NO_ANSWER_MESSAGE: Final = message("a record without an answer teaches nothing, drop it")
NO_PROMPT_MESSAGE: Final = message(
    "an answer without a question teaches nothing about questions, drop it or use data.format=text"
)


def _read_alpaca(row: ColumnView) -> Conversation:
    answer = "output"
    if not row.has("output") and "output" not in row.columns and row.has("response"):
        answer = "response"
    extra = row.optional("input")
    if not extra.strip() and "input" not in row.columns:
        extra = row.optional("context") or extra
    prompt = prompt_with_input(row.text("instruction", NO_PROMPT_MESSAGE), extra)
    return _single_exchange(row, prompt, row.text(answer, NO_ANSWER_MESSAGE))


def _read_prompt_completion(row: ColumnView) -> Conversation:
    prompt = prompt_with_input(row.text("prompt", NO_PROMPT_MESSAGE), named_input(row))
    return _single_exchange(row, prompt, row.text("completion", NO_ANSWER_MESSAGE))


def named_input(row: ColumnView) -> str:
    """The text of the column that `data.columns.input` names; empty where it names none."""
    return row.optional("input") if "input" in row.columns else ""


def prompt_with_input(prompt: str, extra: str) -> str:
    """What is asked, with what it is asked about below it."""
    return f"{prompt}\n\n{extra}" if extra else prompt


def _single_exchange(row: ColumnView, prompt: str, answer: str) -> Conversation:
    turns = with_leading_turns(row, [Message("user", prompt), Message("assistant", answer)])
    return Conversation(tuple(turns), None, _read_meta(row))


def _read_messages(row: ColumnView) -> Conversation:
    turns = [_parse_turn(turn, ROLE_NAMES, "role", "content") for turn in _require_turns(row, "messages")]
    return _build_conversation(row, with_leading_turns(row, turns))


def _read_sharegpt(row: ColumnView) -> Conversation:
    turns = [_parse_turn(turn, SHAREGPT_ROLES, "from", "value") for turn in _require_turns(row, "conversations")]
    return _build_conversation(row, with_leading_turns(row, turns))


def with_leading_turns(row: ColumnView, turns: list[Message]) -> list[Message]:
    """The turns behind those of the columns `system` and `history`, unless they hold these already.

    Raises:
        DataError: If there are two system texts, or the history is no list of turns.
    """
    if not (row.has("system") or row.has("history")):
        return turns
    system, history = row.optional("system"), _read_history(row)
    own = turns[:1] if turns and turns[0].role == "system" and turns[0].content.strip() else []
    if own and system.strip() and own[0].content != system:
        name = row.user_name("system")
        raise DataError(
            translate(
                "'{name}' and the system turn of the conversation differ, and only one can come "
                "first; drop one of them, or leave the column out: data.ignore_columns=[{name}]",
                name=name,
            )
        )
    rest = turns[len(own) :]
    opening = [(turn.role, turn.content) for turn in rest[: len(history)]]
    if opening == [(turn.role, turn.content) for turn in history]:
        history = []
    return [*([Message("system", system)] if system.strip() else own), *history, *rest]


QUESTION_KEYS: Final = ("user", "human", "question", "query", "prompt", "instruction", "input")
ANSWER_KEYS: Final = ("assistant", "gpt", "bot", "answer", "response", "completion", "output")


def _read_history(row: ColumnView) -> list[Message]:
    """The turns of the column `history`, oldest first, in any of the layouts that are in use.

    Rounds are pairs of a question and an answer, as lists or under keys such as `user` and `assistant`; turns are
    `{role, content}` or `{from, value}`; texts take turns, the user first.  A table holds the same as JSON text.
    """
    value, name = row.value("history"), row.user_name("history")
    if isinstance(value, str):
        value = _parse_json_list(value) if value.strip() else None
    rounds: list[Any] = [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
    if len(rounds) % 2 == 0 and all(isinstance(entry, str) for entry in rounds):
        rounds = list(zip(rounds[::2], rounds[1::2], strict=True))
    turns: list[Message] = []
    for entry in rounds:
        match entry:
            case {"role": _}:
                turns.append(_parse_turn(entry, ROLE_NAMES, "role", "content"))
            case {"from": _}:
                turns.append(_parse_turn(entry, SHAREGPT_ROLES, "from", "value"))
            case _:
                turns += [
                    Message(
                        role,
                        require_text(
                            text,
                            translate("the {role} part of a round of '{name}'", role=role, name=name),
                            translate("drop the round"),
                        ),
                    )
                    for role, text in zip(("user", "assistant"), _round_texts(entry, name), strict=True)
                ]
    return turns


def _round_texts(entry: Any, name: str) -> tuple[Any, Any]:
    """Question and answer of one round."""
    if isinstance(entry, list | tuple) and len(entry) == 2:
        return entry[0], entry[1]
    if isinstance(entry, Mapping):
        questions, answers = ([key for key in keys if key in entry] for keys in (QUESTION_KEYS, ANSWER_KEYS))
        if len(questions) == len(answers) == 1:
            return entry[questions[0]], entry[answers[0]]
    raise DataError(
        translate(
            "'{name}' holds {entry!r}, which is no earlier round; give a list of [question, "
            "answer] pairs or of {{role, content}} turns (in a table as JSON text), or leave it "
            "out: data.ignore_columns=[{name}]",
            name=name,
            entry=preview_value(entry),
        )
    )


def _parse_json_list(value: Any) -> Any:
    """The list that a text holds as JSON, as the cell of a table does; the value itself where it is none."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        return json.loads(value)
    except JSON_ERRORS:
        return value


ROLE_NAMES: Final = {role: role for role in ROLES} | {"developer": "system"}
SHAREGPT_ROLES: Final = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "system": "system",
    "observation": "tool",
    "tool": "tool",
}


KEPT_TURN_KEYS: Final = ("name", "tool_call_id")  # keys of a turn that some templates read
REASONING_KEYS: Final = ("reasoning_content", "reasoning", "thinking")  # names of what an assistant thinks first
TEXT_PARTS: Final = ("text", "input_text", "output_text")  # types of a part of a content that is text


def parse_turns(value: Any) -> Any:
    """The turns that a text holds as JSON, as the cell of a table does; the value itself where it holds none."""
    turns = _parse_json_list(value)
    if not isinstance(turns, list) or not turns:
        return value
    return turns if all(isinstance(turn, Mapping) and "role" in turn for turn in turns) else value


def _require_turns(row: ColumnView, ours: str) -> list[Any]:
    turns, name = _parse_json_list(row.value(ours)), row.user_name(ours)
    if not row.has(ours):
        row.text(ours, NO_ANSWER_MESSAGE)  # raises, and lists the columns
    if not isinstance(turns, list | tuple) or not turns:
        got = "empty" if isinstance(turns, list | tuple) else type(turns).__name__
        raise DataError(
            translate("'{name}' is {got}; a conversation is a list of turns, oldest first", name=name, got=got)
        )
    return list(turns)


def _parse_turn(turn: Any, roles: Mapping[str, str], role_key: str, text_key: str) -> Message:
    if not isinstance(turn, Mapping) or role_key not in turn:
        seen = f"keys {', '.join(map(str, turn))}" if isinstance(turn, Mapping) else type(turn).__name__
        raise DataError(
            translate(
                "a turn is {{{role_key}, {text_key}}}, got {seen}", role_key=role_key, text_key=text_key, seen=seen
            )
        )
    said_by = turn[role_key]
    if not isinstance(said_by, str) or said_by not in roles:
        raise DataError(
            translate(
                "a turn is from {said_by!r}; known: {names}", said_by=preview_value(said_by), names=", ".join(roles)
            )
        )
    role, calls = roles[said_by], read_calls(turn.get("tool_calls"))
    only_answers = [key for key in (*REASONING_KEYS, "tool_calls") if turn.get(key)] if role != "assistant" else []
    if lost := [key for key in ("function_call",) if turn.get(key)] + only_answers:
        raise DataError(
            translate(
                "{names} of the {said_by} turn would be lost: no template is given it; write what "
                "the model shall see or say into '{text_key}', calls of an assistant turn into "
                "'tool_calls'",
                names=", ".join(lost),
                said_by=said_by,
                text_key=text_key,
            )
        )
    name = f"{text_key} of the {said_by} turn"
    why = (
        None
        if calls or role in ("system", "tool")
        else translate("each {role} turn says something; drop the record", role=role)
    )
    content = require_text(_join_parts(turn.get(text_key), name), name, why)
    if said_by == "function_call" and (calls := calls_from_text(content)):
        content = ""
    more = {key: turn[key] for key in KEPT_TURN_KEYS if isinstance(turn.get(key), str)}
    return Message(role, content, _is_trained(turn), calls, more, _read_reasoning(turn, said_by))


def _join_parts(content: Any, name: str) -> Any:
    """The texts of a content that is a list of parts, end to end; any other content as it is.

    Raises:
        DataError: Naming the types of parts that are no text.
    """
    if not isinstance(content, list | tuple):
        return content
    texts: list[str] = []
    others: list[str] = []
    for part in content:
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        if isinstance(text, str) and kind in TEXT_PARTS:
            texts.append(text)
        else:
            others.append(preview_value(kind if isinstance(part, Mapping) and kind not in TEXT_PARTS else part))
    if others:
        raise DataError(
            translate(
                "'{name}' has parts that are no text ({names}), and the models trained here read "
                "text alone; take these parts out, or drop the record",
                name=name,
                names=", ".join(dict.fromkeys(others)),
            )
        )
    return "".join(texts)


def _read_reasoning(turn: Mapping[str, Any], said_by: str) -> str:
    """What an assistant turn thinks before it answers, under whichever name the record has it.

    Raises:
        DataError: If it is no text, or there are two that differ.
    """
    texts = {
        key: require_text(_join_parts(turn[key], f"{key} of the {said_by} turn"), f"{key} of the {said_by} turn", None)
        for key in REASONING_KEYS
        if turn.get(key)
    }
    if len(set(texts.values())) > 1:
        raise DataError(
            translate(
                "{names} of the {said_by} turn differ, and a turn has one reasoning; keep one of them",
                names=translate(" and ").join(texts),
                said_by=said_by,
            )
        )
    reasoning = next(iter(texts.values()), "")
    return reasoning if reasoning.strip() else ""


def _is_trained(turn: Mapping[str, Any]) -> bool:
    """Whether a turn is learned: `train: false` and `weight: 0`, another spelling of it, say no."""
    train, weight = turn.get("train"), turn.get("weight")
    if train is not None and not isinstance(train, bool):
        raise DataError(translate("'train' of a turn is {train!r}; write true or false", train=preview_value(train)))
    if weight is not None and (isinstance(weight, bool) or not isinstance(weight, int | float) or weight not in (0, 1)):
        raise DataError(
            translate(
                "'weight' of a turn is {weight!r}; only 0 (not learned) and 1 (learned) are known",
                weight=preview_value(weight),
            )
        )
    return train is not False and weight != 0


def _build_conversation(row: ColumnView, turns: list[Message]) -> Conversation:
    kept = tuple(turn for turn in turns if turn.role != "system" or turn.content.strip())
    if not any(turn.role == "assistant" for turn in kept):
        raise DataError(translate("there is no assistant turn; {reason}", reason=NO_ANSWER_MESSAGE))
    return Conversation(kept, read_tools(row.value("tools")), _read_meta(row))


def _read_text(row: ColumnView) -> str:
    return row.text("text", translate("an empty text teaches nothing, drop it"))


def _read_meta(row: ColumnView) -> dict[str, Any]:
    if not row.columns:
        return {name: row.record[name] for name in META_COLUMNS if name in row.record}
    return {name: row.value(name) for name in META_COLUMNS if row.has(name)}


@dataclass(frozen=True, slots=True)
class RecordFormat:
    """One layout of records.

    Attributes:
        read: Turns a row into a conversation, or into plain text.
        required: Columns that identify the format; each entry lists names of which one must be there.
        optional: Columns that may be there besides.
        prompt: Column that holds the prompt; empty where records cannot be read for their question alone.
        answer: Column of the answer, where it has one of its own.
        turn_keys: Where `prompt` holds a list of turns, the keys of the speaker and of the text of a turn.
        fallbacks: Column that is read only where another one holds nothing and has no other name -> that other one.
        when_named: Columns that are read only where `data.columns` names them.
    """

    read: Callable[[ColumnView], Conversation | str]
    required: tuple[tuple[str, ...], ...]
    optional: tuple[str, ...] = ()
    prompt: str = ""
    answer: str | None = None
    turn_keys: tuple[str, str] | None = None
    fallbacks: Mapping[str, str] = field(default_factory=dict)
    when_named: tuple[str, ...] = ()

    def describe(self) -> str:
        """Its columns, for messages."""
        needed = ["/".join(names) for names in self.required]
        return ", ".join(needed + [f"[{name}]" for name in self.optional])

    def columns_read(self, filled: Collection[str], columns: Mapping[str, str]) -> frozenset[str]:
        """The columns of a record that are read.

        Args:
            filled: Those that hold something.
            columns: Our name of a column -> the user's name of it, or the path to it.

        Example:
            >>> sorted(FORMATS["alpaca"].columns_read({"instruction", "context", "response", "category"}, {}))
            ['context', 'instruction', 'response']
        """
        names = {ours: columns.get(ours, ours).partition(".")[0] for ours in self.known_columns(columns)}
        names |= {ours: columns[ours] for ours in names if columns.get(ours) in filled}  # a name with a dot in it
        unused = {
            ours for ours, first in self.fallbacks.items() if first in columns or names.get(first, first) in filled
        }
        return frozenset(name for ours, name in names.items() if ours not in unused).intersection(filled)

    def known_columns(self, columns: Mapping[str, str]) -> Iterator[str]:
        """Our names of the columns that it reads where they are there."""
        yield from (name for names in self.required for name in names)
        yield from self.optional
        yield from (name for name in self.when_named if name in columns)


_REGISTRY: dict[str, RecordFormat] = {
    "messages": RecordFormat(
        _read_messages,
        (("messages",),),
        ("tools", *LEADING_COLUMNS),
        prompt="messages",
        turn_keys=("role", "content"),
    ),
    "sharegpt": RecordFormat(
        _read_sharegpt,
        (("conversations",),),
        ("tools", *LEADING_COLUMNS),
        prompt="conversations",
        turn_keys=("from", "value"),
    ),
    "alpaca": RecordFormat(
        _read_alpaca,
        (("instruction",), ("output", "response")),
        ("input", "context", *LEADING_COLUMNS),
        fallbacks=MappingProxyType({"response": "output", "context": "input"}),
        prompt="instruction",
        answer="output",
    ),
    "prompt_completion": RecordFormat(
        _read_prompt_completion,
        (("prompt",), ("completion",)),
        LEADING_COLUMNS,
        when_named=("input",),
        prompt="prompt",
        answer="completion",
    ),
    "text": RecordFormat(_read_text, (("text",),), prompt="text"),
}
FORMATS: Final[Mapping[str, RecordFormat]] = MappingProxyType(_REGISTRY)  # by the name that `data.format` takes


def register_format(name: str, form: RecordFormat) -> None:
    """Make a layout of records known as `data.format=NAME`; a package of the user's own calls this at import.

    `data.format=auto` tries it after all that were known before.

    Raises:
        ConfigError: If the name is taken by another layout.
    """
    if name == "auto" or _REGISTRY.get(name, form) != form:
        raise ConfigError(translate("there is a data format {name!r} already; give yours another name", name=name))
    _REGISTRY[name] = form


def detect_format(columns: Collection[str], renamed: Mapping[str, str] = NO_RENAMES) -> str:
    """Tell the format from the column names; the first of `FORMATS` whose columns are all there.

    Args:
        columns: Names the records have.
        renamed: Our name -> the user's name (`data.columns`).

    Raises:
        DataError: If no format fits; the message lists what was seen, what is known, and the closest.

    Example:
        >>> detect_format(["question", "answer"], {"prompt": "question", "completion": "answer"})
        'prompt_completion'
    """
    seen = set(columns) | {
        ours for ours, theirs in renamed.items() if theirs in columns or theirs.partition(".")[0] in columns
    }
    for name, form in FORMATS.items():
        if all(seen.intersection(names) for names in form.required):
            return name
    closest = max(FORMATS, key=lambda name: _column_similarity(FORMATS[name], columns))
    known = "; ".join(f"{name} ({form.describe()})" for name, form in FORMATS.items())
    rename = " ".join(f"data.columns.{names[0]}=..." for names in FORMATS[closest].required if not seen & set(names))
    raise DataError(
        translate(
            "the columns {value} fit no format; known: {known}; closest: {closest}; name your "
            "columns: data.format={closest} {rename}",
            value=", ".join(sorted(map(str, columns))) or "(none)",
            known=known,
            closest=closest,
            rename=rename,
        )
    )


def _column_similarity(form: RecordFormat, columns: Collection[str]) -> float:
    """Similarity of the columns, from 0 to 1: the mean over the needed columns of the best match of each."""
    best = [
        max((SequenceMatcher(None, name, str(column)).ratio() for name in names for column in columns), default=0.0)
        for names in form.required
    ]
    return sum(best) / len(best)


def to_conversation(
    record: Mapping[str, Any], format: str, columns: Mapping[str, str] = NO_RENAMES
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
        raise DataError(
            translate("data.format is {format!r}; known: auto, {names}", format=format, names=", ".join(FORMATS))
        )
    return FORMATS[format].read(ColumnView(record, columns))


PLACEHOLDER_ANSWER: Final = "?"  # an answer where a format requires one; it is cut off again and never reaches a model


def read_question(
    record: Mapping[str, Any], format: str, columns: Mapping[str, str] = NO_RENAMES
) -> Conversation | str:
    """The turns a model is to answer; for plain text, the text it is to go on with.

    An answer that the record holds already is left out: the last turn of the assistant, if nothing follows it.

    Args:
        record: One line of the user's data.
        format: The format the model learned from, or "auto".  A record without its columns may have another one's.
        columns: Our name of a column -> the user's name of it.

    Raises:
        DataError: If the record has no prompt, or its prompt is empty or no text.

    Example:
        >>> read_question({"prompt": "2+2?"}, "auto").messages[0].content
        '2+2?'
    """
    row = ColumnView(record, columns)
    # formats with a column for the answer are tried first
    askable = [form for form in sorted(FORMATS.values(), key=lambda form: form.answer is None) if form.prompt]
    preferred = [FORMATS[format]] if format in FORMATS and FORMATS[format].prompt else []
    form = next((form for form in [*preferred, *askable] if row.has(form.prompt)), None)
    if form is None:
        known = ", ".join(dict.fromkeys(row.user_name(form.prompt) for form in askable))
        seen = ", ".join(map(str, record)) or "none"
        raise DataError(
            translate(
                "no column holds a question; it is looked for in {known}, and there is {seen}", known=known, seen=seen
            )
        )
    # the answer, and turns with an answer added, stand under our own name in what is read
    placed = {form.answer, *(other.prompt for other in askable if other.turn_keys)}
    own = {ours: theirs for ours, theirs in columns.items() if ours not in placed}
    conversation = form.read(ColumnView(with_placeholder_answer(row, form), own))
    if isinstance(conversation, str):
        return conversation
    prompt = conversation.messages[: conversation.last_assistant_turn()]
    if not prompt:
        raise DataError(translate("nothing comes before the first answer, so nothing is asked"))
    return Conversation(prompt, conversation.tools, conversation.meta)


def with_placeholder_answer(row: ColumnView, form: RecordFormat) -> dict[str, Any]:
    """The record with an answer in the place where its format requires one."""
    record = dict(row.record)
    if form.answer:
        return {**record, form.answer: PLACEHOLDER_ANSWER}
    if form.turn_keys is None:
        return record
    speaker, text = form.turn_keys
    turns = _parse_json_list(row.value(form.prompt))
    if isinstance(turns, list | tuple) and turns:
        last = turns[-1].get(speaker) if isinstance(turns[-1], Mapping) else None
        if SHAREGPT_ROLES.get(str(last)) != "assistant":
            turns = [*turns, {speaker: "assistant", text: PLACEHOLDER_ANSWER}]
        record[form.prompt] = turns  # under our name too, which a way into the record may not lead to
    return record


def rename_columns(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """A row in which each column of `columns` (the run's name -> the source's) goes by the run's name.

    Example:
        >>> rename_columns({"question": "2+2?", "id": 7}, {"prompt": "question"})
        {'id': 7, 'prompt': '2+2?'}
    """
    values = {ours: lookup_path(row, theirs) for ours, theirs in columns.items()}
    replaced = {*columns, *columns.values()}
    rest = {name: value for name, value in row.items() if name not in replaced}
    return rest | {ours: value for ours, value in values.items() if value is not MISSING}


def format_columns(format: str, names: list[str], columns: Mapping[str, str]) -> frozenset[str]:
    """The columns to keep, so that each record shows by itself what it is.

    Args:
        format: Layout of the source; "auto" detects it by `names`.
        names: Every column of the source.
        columns: Our name of a column -> the run's name of it.

    Raises:
        ConfigError: If there is no such format.
        DataError: If no format fits the columns.
    """
    if format != "auto" and format not in FORMATS:
        raise ConfigError(
            translate(
                "data.mix: format={format} is unknown; choose auto, {names}", format=format, names=", ".join(FORMATS)
            )
        )
    form = FORMATS[detect_format(names, columns) if format == "auto" else format]
    ours = set(form.known_columns(columns))
    theirs = {columns[name] for name in ours if name in columns}
    return frozenset(ours | theirs | {way.partition(".")[0] for way in theirs} | set(META_COLUMNS))


def keep_columns(row: Mapping[str, Any], kept: frozenset[str]) -> dict[str, Any]:
    """A row without the columns that are not kept."""
    return {name: value for name, value in row.items() if name in kept}
