"""Where the texts of a record stand in the text that a chat template writes.

A template may leave out a turn, take an answer apart, or move a part of it.  So each record is written twice: as it
is, and as its twin, in which a stand-in word takes the place of every text.  What the template does with the words,
it does with the texts: their places in the twin are the places in the record's own text, and a word that is missing is
a text that the model would never see.  Nothing of a twin is ever encoded.  Pure.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from tunelab.data.conversation import END_OF_REASONING

STAND_IN: Final = re.compile(r"zqv(\d{5})kx", re.IGNORECASE)  # a word that no template writes by itself
MATCH_NOTHING: Final = re.compile(r"(?!)")
REASONING_NAMES: Final = "think|thinking|thought|reason|reasoning|seed:think"
REASONING_MARK: Final = re.compile(rf"<[/|]{{0,2}}(?:{REASONING_NAMES})[|]?>|\[/?THINK\]|◁/?think▷")
# Kept as they are in a twin: what templates look for inside texts.
TAG: Final = re.compile(
    rf"{REASONING_MARK.pattern}|</?(?:tool_call|tool_response|tools|observation)>|/(?:no_?)?think\b|/system_override\b"
)

TAG_LETTERS: Final = "<[◁/"  # one of which a tag begins with
TAG_START: Final = re.compile(f"[{re.escape(TAG_LETTERS)}]")

TemplateMessage = dict[str, Any]
Span = tuple[int, int]  # characters of a text, first and one past the last


class RecordText(NamedTuple):
    """One text of a record.

    Attributes:
        turn: Index of its turn.
        part: "content", "reasoning", "call", or "token": a control token spelled out where else texts stay as they are.
        text: Without the blanks around it.
    """

    turn: int
    part: str
    text: str


class Place(NamedTuple):
    """The characters of a written text that are a text of the record."""

    number: int  # of the text in its twin
    start: int
    end: int


@dataclass
class Twin:
    """A record with stand-ins for its texts.

    Attributes:
        turns: As a template takes them.
        tools: Function schemas, or None.
        texts: What the stand-ins stand for, by their numbers.
    """

    turns: list[TemplateMessage] = field(default_factory=list)
    tools: list[dict[str, Any]] | None = None
    texts: list[RecordText] = field(default_factory=list)

    @property
    def key(self) -> tuple[Any, ...] | None:
        """Equal for records that differ in their texts alone; None where calls or tools make each its own."""
        if self.tools:
            return None
        rows = [tuple(turn.items()) for turn in self.turns]
        plain = all(isinstance(value, str) for row in rows for _, value in row)
        return tuple(rows) if plain else None


def make_twin(turns: Sequence[TemplateMessage], tools: list[dict[str, Any]] | None, control: re.Pattern[str]) -> Twin:
    """The twin of a record.

    Args:
        turns: As a template takes them, contents as text.
        tools: Function schemas; only control tokens in them get a stand-in.
        control: Matches control tokens, which are no tags: a template must not tell them from other text.
    """
    twin = Twin()
    for number, turn in enumerate(turns):
        twin.turns.append(
            {key: _twin_value(twin, number, turn["role"], key, value, control) for key, value in turn.items()}
        )
    twin.tools = _hide_tokens(twin, -1, tools, control)
    return twin


def _twin_value(twin: Twin, number: int, role: str, key: str, value: Any, control: re.Pattern[str]) -> Any:
    if key == "role" or not value:
        return value
    if key == "content" and isinstance(value, str):
        return "".join(_twin_content(twin, number, role, value, control))
    if key == "reasoning_content":
        return _stand_in(twin, RecordText(number, "reasoning", value))
    if key == "tool_calls" and role == "assistant":  # readers refuse calls of anyone else
        return [
            {
                **call,
                "function": {
                    name: _twin_call(twin, number, inner, control)
                    for name, inner in call["function"].items()
                },
            }
            for call in value
        ]  # fmt: skip
    return _hide_tokens(twin, number, value, control)


def _twin_content(twin: Twin, number: int, role: str, content: str, control: re.Pattern[str]) -> Iterator[str]:
    """The content with a stand-in for each stretch between tags; reasoning and answer each have one at least."""
    if not TAG_START.search(content):
        yield _stand_in(twin, RecordText(number, "content", content))
        return
    if role != "assistant":
        yield from _twin_stretch(twin, RecordText(number, "content", content), control)
        return
    ends = [match.end() for match in END_OF_REASONING.finditer(content)]
    answer, done = ends[-1] if ends else 0, 0
    for match in REASONING_MARK.finditer(content):
        part = "reasoning" if match.end() <= answer else "content"
        yield from _twin_stretch(twin, RecordText(number, part, content[done : match.start()]), control)
        yield match.group()
        done = match.end()
    yield from _twin_stretch(twin, RecordText(number, "content", content[done:]), control)


def _twin_stretch(twin: Twin, entry: RecordText, control: re.Pattern[str]) -> Iterator[str]:
    """A text with a stand-in for each stretch between tags; for all of it where it is nothing but tags."""
    text = entry.text
    tags = [match.span() for match in TAG.finditer(text) if not control.search(match.group())]
    starts, ends = [0, *(end for _, end in tags)], [*(start for start, _ in tags), len(text)]
    if not any(text[start:end].strip() for start, end in zip(starts, ends, strict=True)):
        yield _stand_in(twin, entry)
        return
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        yield _stand_in(twin, entry._replace(text=text[start:end]))
        if place < len(tags):
            yield text[slice(*tags[place])]


def _stand_in(twin: Twin, entry: RecordText) -> str:
    """The text with a stand-in between its blanks; a blank text as it is."""
    core = entry.text.strip()
    if not core:
        return entry.text
    if len(core) == len(entry.text):
        twin.texts.append(entry)
        return f"Zqv{len(twin.texts) - 1:05d}kx"
    before = entry.text[: len(entry.text) - len(entry.text.lstrip())]
    after = entry.text[len(entry.text.rstrip()) :]
    twin.texts.append(entry._replace(text=core))
    return f"{before}Zqv{len(twin.texts) - 1:05d}kx{after}"


def _twin_call(twin: Twin, number: int, value: Any, control: re.Pattern[str]) -> Any:
    """A name or the arguments of a call, with a stand-in for each text in them."""
    return _replace_texts(
        value,
        lambda text: _stand_in(twin, RecordText(number, "call", text)),
        lambda key: _hide_tokens(twin, number, key, control),
    )


def _hide_tokens(twin: Twin, number: int, value: Any, control: re.Pattern[str]) -> Any:
    """The same value with a stand-in for each control token spelled out in it."""

    def hide(text: str) -> str:
        return control.sub(lambda match: _stand_in(twin, RecordText(number, "token", match.group())), text)

    return _replace_texts(value, hide, lambda key: hide(key) if isinstance(key, str) else key)


def _replace_texts(value: Any, of_text: Callable[[str], str], of_key: Callable[[Any], Any]) -> Any:
    """The same value with every text in it replaced, and every key of its mappings, in the order of the value."""
    if isinstance(value, str):
        return of_text(value)
    if isinstance(value, Mapping):
        return {of_key(key): _replace_texts(inner, of_text, of_key) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_texts(inner, of_text, of_key) for inner in value]
    return value


def seen_texts(twin_text: str) -> set[int]:
    """The numbers of the stand-ins that a template has written."""
    return {int(match.group(1)) for match in STAND_IN.finditer(twin_text)}


def place_texts(text: str, twin_text: str, texts: Sequence[RecordText]) -> list[Place] | None:
    """Where the texts of a record stand in what a template wrote; None if it is not the twin's text with other words.

    Args:
        text: The record, as the template writes it.
        twin_text: The twin, as the template writes it.
        texts: What the stand-ins stand for.
    """
    pieces = STAND_IN.split(twin_text)
    if not text.startswith(pieces[0]):
        return None
    places, done = [], len(pieces[0])
    for number, literal in zip(pieces[1::2], pieces[2::2], strict=True):
        for written in written_forms(texts[int(number)].text):
            end = done + len(written)
            if text.startswith(written, done) and text.startswith(literal, end):
                places.append(Place(int(number), done, end))
                done = end + len(literal)
                break
        else:
            return None
    return places if done == len(text) else None


def search_texts(text: str, seen: set[int], twin: Twin) -> tuple[list[Place], list[int]]:
    """Where texts stand in what a template wrote, each after those of earlier turns; and those that do not.

    System turns may stand anywhere: templates put them before or into other turns.

    Args:
        text: The record, as the template writes it.
        seen: Numbers of the texts that are looked for.
        twin: Holds the texts.
    """
    places: list[Place] = []
    lost: list[int] = []
    earliest = reached = 0
    turn = -1
    for number in sorted(seen):
        entry = twin.texts[number]
        anywhere = entry.turn < 0 or twin.turns[entry.turn]["role"] == "system"
        if entry.turn != turn and not anywhere:
            turn, earliest = entry.turn, reached
        start = 0 if anywhere else earliest
        spans = ((at, at + len(form)) for form in written_forms(entry.text) if (at := text.find(form, start)) >= 0)
        if span := next(spans, None):
            places.append(Place(number, *span))
            reached = reached if anywhere else max(reached, span[1])
        else:
            lost.append(number)
    return places, lost


def moved_turn(places: Sequence[Place], twin: Twin) -> int | None:
    """The first turn that stands before an earlier one; system turns may stand anywhere."""
    latest = -1
    for place in places:
        turn = twin.texts[place.number].turn
        if turn < 0 or twin.turns[turn]["role"] == "system":
            continue
        if turn < latest:
            return turn
        latest = turn
    return None


def find_spans(pattern: re.Pattern[str], text: str, start: int = 0, end: int | None = None) -> list[Span]:
    """Where a pattern matches in a stretch of a text."""
    return [match.span() for match in pattern.finditer(text, start, len(text) if end is None else end)]


def written_forms(text: str) -> Iterator[str]:
    """The text as templates may write it: as it is, inside a JSON text, or inside a Python one."""
    yield text
    for write in WRITERS:
        if (form := write(text)[1:-1]) != text:
            yield form


WRITERS: Final[tuple[Callable[[str], str], ...]] = (
    lambda text: json.dumps(text, ensure_ascii=False),
    json.dumps,
    repr,
)
