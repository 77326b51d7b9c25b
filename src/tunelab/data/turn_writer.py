"""Conversations as text: what a chat template writes, and where the texts of the record stand in it."""

import json
import re
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final, NamedTuple

from transformers import PreTrainedTokenizerBase

from tunelab.data.template_rendering import (
    RenderedText,
    TemplateMessage,
    render_conversation,
    without_generation_blocks,
)
from tunelab.data.template_texts import writes_texts_untouched
from tunelab.data.text_placement import (
    MATCH_NOTHING,
    REASONING_MARK,
    STAND_IN,
    Place,
    Span,
    Twin,
    find_spans,
    make_twin,
    moved_turn,
    place_texts,
    search_texts,
    seen_texts,
)
from tunelab.errors import DataError
from tunelab.language.translation import message, translate

MAX_CACHED_TWINS: Final = 4096  # shapes of records
MAX_FILLED_CHARACTERS: Final = 2**20  # of a record that is written without its template; longer ones are rendered
STAND_IN_CHARACTERS: Final = 10
OPEN_REASONING: Final = re.compile(  # at the end of a prompt: the model is to think next
    r"(<(?:think|thinking|thought|reason|reasoning|seed:think)>|\[THINK\]|◁think▷)\s*\Z"
)
SWITCHES: Final = {  # the variable by which templates of today's families ask to think, or not to
    "no thinking": {"enable_thinking": False},
    "thinking": {"enable_thinking": True},
}


@dataclass(frozen=True)
class WrittenTurns:
    """Turns as a template writes them.

    Attributes:
        text: All of it.
        blocks: Characters of each generation block.
        twin: The texts of the record.
        twin_text: The twin, as the template writes it.
        seen: Numbers of those texts that are in `text`.
        places: Where they stand.
        lost: Numbers of texts that the template writes otherwise than the record has them.
        exact: Whether `text` is the template's own words around the texts of the record, and nothing else.
    """

    text: str
    blocks: list[Span]
    twin: Twin
    twin_text: str
    seen: set[int]
    places: list[Place]
    lost: list[int]
    exact: bool

    def missing(self, turn: int) -> list[str]:
        """The parts of a turn that are not in the text."""
        unseen = (entry for number, entry in enumerate(self.twin.texts) if number not in self.seen)
        return list(dict.fromkeys(entry.part for entry in unseen if entry.turn == turn))

    def from_twin(self, position: int) -> int:
        """The place in the text that a place in the twin's text stands for."""
        shift = 0
        for number, match in enumerate(STAND_IN.finditer(self.twin_text, 0, position)):
            _, start, end = self.places[number]
            shift += end - start - len(match.group())
        return position + shift

    def turn_span(self, turn: int) -> Span | None:
        """First and last character of the texts of a turn; None where it has none."""
        spans = [(start, end) for number, start, end in self.places if self.twin.texts[number].turn == turn]
        return (min(spans)[0], max(end for _, end in spans)) if spans else None


class WrittenShape(NamedTuple):
    """What a template writes for every record of one shape, its texts aside.

    Attributes:
        text: The twin, as the template writes it.
        literals: What stands before each text, and after the last.
        numbers: The text at each place, by its number in the twin.
        blocks: Characters of each generation block in `text`.
        seen: The numbers of the texts that are written.
    """

    text: str
    literals: list[str]
    numbers: list[int]
    blocks: list[Span]
    seen: set[int]

    @classmethod
    def of(cls, rendered: RenderedText) -> "WrittenShape":
        """The shape of the record whose twin was rendered."""
        parts = STAND_IN.split(rendered.text)
        numbers = [int(number) for number in parts[1::2]]
        return cls(rendered.text, parts[::2], numbers, rendered.generation_spans, set(numbers))

    def fill(self, twin: Twin) -> tuple[str, list[Span], list[Place]]:
        """The text of a record of this shape, characters of each generation block, and where its texts stand."""
        parts, places, done = [self.literals[0]], [], len(self.literals[0])
        for number, literal in zip(self.numbers, self.literals[1:], strict=True):
            text = twin.texts[number].text
            places.append(Place(number, done, done + len(text)))
            parts += (text, literal)
            done += len(text) + len(literal)
        return "".join(parts), [(self.moved(a, places), self.moved(b, places)) for a, b in self.blocks], places

    def moved(self, position: int, places: Sequence[Place]) -> int:
        """The place in a filled text that a place in `text` stands for."""
        shift = passed = 0
        for literal, (_, start, end) in zip(self.literals, places, strict=False):
            passed += len(literal) + STAND_IN_CHARACTERS
            if passed > position:
                break
            shift += end - start - STAND_IN_CHARACTERS
        return position + shift

    def unmoved(self, position: int, places: Sequence[Place]) -> int:
        """The place in `text` that a place in a filled text stands for, which is in no text of the record."""
        shift = 0
        for _, start, end in places:
            if end > position:
                break
            shift += end - start - STAND_IN_CHARACTERS
        return position - shift


class TurnWriter:
    """A template with its tokenizer's variables.

    Attributes:
        source: The template, Jinja.
        parts: Whether it takes contents as lists of parts.
        closing: What ends an answer where the template leaves the end to the turn after it; `closing_call` ends calls.
        turn_end: Matches the tokens that end answers.
        control: Matches the control tokens that a record must not write.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
        """Nothing is rendered yet."""
        self.tokenizer, self.source = tokenizer, source
        self.control = MATCH_NOTHING
        self.parts = False
        self.arguments_as_text = False
        self.closing = self.closing_call = ""
        self.turn_end = MATCH_NOTHING
        self._twins: dict[tuple[Any, ...], str] = {}
        self._spans: dict[tuple[Any, ...], list[Span]] = {}
        self._shapes: dict[tuple[Any, ...], WrittenShape] = {}
        self.texts_untouched = writes_texts_untouched(without_generation_blocks(source))

    @property
    def can_switch_thinking(self) -> bool:
        """Whether the template has a prompt for answers without reasoning."""
        return "enable_thinking" in self.source

    @property
    def may_open_reasoning(self) -> bool:
        """Whether a prompt of the template may open a thought."""
        return REASONING_MARK.search(self.source) is not None

    def render(
        self,
        turns: Sequence[TemplateMessage],
        tools: list[dict[str, Any]] | None,
        *,
        reply: bool = False,
        blocks: bool = False,
        **variables: Any,
    ) -> RenderedText:
        """The text of some turns, as `apply_chat_template` gives it, and the end that it leaves out.

        Raises:
            DataError: If the template does not accept them.
        """
        calls = any("tool_calls" in turn for turn in turns)
        try:
            written = self._render(turns, tools, reply, blocks, variables)
        except DataError:
            if not calls or self.arguments_as_text:
                raise
            self.arguments_as_text = True  # a template that glues text to the arguments takes them as JSON text only
            try:
                written = self._render(turns, tools, reply, blocks, variables)
            except DataError:
                self.arguments_as_text = False
                raise
        if turns and not reply and turns[-1]["role"] == "assistant":
            closing = self.closing_call if turns[-1].get("tool_calls") else self.closing
            return RenderedText(written.text + closing, written.generation_spans)
        return written

    def _render(
        self,
        turns: Sequence[TemplateMessage],
        tools: list[dict[str, Any]] | None,
        reply: bool,
        blocks: bool,
        variables: dict[str, Any],
    ) -> RenderedText:
        if self.parts:
            turns = [{**turn, "content": content_parts(turn.get("content"))} for turn in turns]
        if self.arguments_as_text:
            turns = [with_json_arguments(turn) for turn in turns]
        return render_conversation(self.tokenizer, self.source, turns, tools, reply=reply, blocks=blocks, **variables)

    def write(
        self,
        turns: Sequence[TemplateMessage],
        tools: list[dict[str, Any]] | None,
        *,
        reply: bool = False,
        blocks: bool = False,
        **variables: Any,
    ) -> WrittenTurns:
        """Turns as text, with the place of each text of the record.

        Raises:
            DataError: If the template does not accept them, or no place can be told for a control token in a text.
        """
        twin = make_twin(turns, tools, self.control)
        if (
            self.texts_untouched
            and not self.parts
            and (filled := self._filled(turns, tools, twin, reply, blocks, variables))
        ):
            return filled
        written = self.render(turns, tools, reply=reply, blocks=blocks, **variables)
        twin_text = self._twin_text(twin, lambda: self.render(twin.turns, twin.tools, reply=reply, **variables).text,
                                    (reply, *variables.items()))  # fmt: skip
        seen = seen_texts(twin_text)
        places = place_texts(written.text, twin_text, twin.texts)
        if places is not None:
            return WrittenTurns(written.text, written.generation_spans, twin, twin_text, seen, places, [], True)
        places, lost = search_texts(written.text, seen, twin)
        for number in sorted(seen):
            entry = twin.texts[number]
            if spelled := self.control.search(entry.text):
                raise DataError(
                    translate(
                        "{turn} spells out {group!r}, and the template takes that text apart, so the token "
                        "cannot be kept apart from those of the template; take it out of the text, or drop "
                        "the record",
                        turn=of_turn(entry.turn),
                        group=spelled.group(),
                    )
                )
        return WrittenTurns(written.text, written.generation_spans, twin, twin_text, seen, places, lost, False)

    def _filled(
        self,
        turns: Sequence[TemplateMessage],
        tools: list[dict[str, Any]] | None,
        twin: Twin,
        reply: bool,
        blocks: bool,
        variables: dict[str, Any],
    ) -> WrittenTurns | None:
        """Turns of a shape that was rendered before: what was written then, with the texts of these.

        The first record of a shape is rendered itself and compared; None where that differs, or the shape has no key.
        """
        key = twin.key
        if key is None or not twin.texts or sum(len(entry.text) for entry in twin.texts) > MAX_FILLED_CHARACTERS:
            return None
        place = (key, reply, blocks, *variables.items(), self.closing, self.source)
        if place not in self._shapes:
            own = self.render(turns, tools, reply=reply, blocks=blocks, **variables)
            rendered = self.render(twin.turns, tools, reply=reply, blocks=blocks, **variables)
            shape = WrittenShape.of(rendered)
            if shape.fill(twin)[:2] != own:
                self.texts_untouched = False
                return None
            if len(self._shapes) >= MAX_CACHED_TWINS:
                self._shapes.clear()
            self._shapes[place] = shape
        shape = self._shapes[place]
        text, spans, places = shape.fill(twin)
        return WrittenTurns(text, spans, twin, shape.text, shape.seen, places, [], True)

    def literal_spans(self, written: WrittenTurns) -> list[Span]:
        """Where the record, not the template, spells out a control token."""
        if not any(self.control.search(entry.text) for entry in written.twin.texts):
            return []
        spans: set[Span] = set()
        for _, start, end in written.places:
            spans.update(find_spans(self.control, written.text, start, end))
        return sorted(spans)

    def added_spans(
        self, written: WrittenTurns, turns: Sequence[TemplateMessage], tools: list[dict[str, Any]] | None, turn: int
    ) -> list[Span]:
        """Characters that an answer adds to each of its prompts with which the text begins; empty where a model is
        asked otherwise.

        All but the last turn are looked up in the twin, whose renderings serve every record of its shape; the last one
        too, where the template never looks into a text.
        """
        if not written.exact or (turn + 1 == len(turns) and (self.parts or not self.texts_untouched)):
            return self._added_spans(written.text, turns, tools, turn)
        key = written.twin.key
        place = (key, turn, self.closing, self.source)
        if key is None or place not in self._spans:
            spans = self._added_spans(written.twin_text, written.twin.turns, written.twin.tools, turn)
            if key is None:
                return [(written.from_twin(start), written.from_twin(end)) for start, end in spans]
            if len(self._spans) >= MAX_CACHED_TWINS:
                self._spans.clear()
            self._spans[place] = spans
        return [(written.from_twin(start), written.from_twin(end)) for start, end in self._spans[place]]

    def _added_spans(
        self, text: str, turns: Sequence[TemplateMessage], tools: list[dict[str, Any]] | None, turn: int
    ) -> list[Span]:
        upto = text if turn + 1 == len(turns) else self.render(turns[: turn + 1], tools).text
        end = len(upto) if text.startswith(upto) else self._shared_end(text, upto)
        prompts = (self.prompt(way, turns[:turn], tools) for way in PROMPT_WAYS)
        return [(len(p), end) for p in prompts if p is not None and len(p) < end and text.startswith(p)]

    def _shared_end(self, text: str, upto: str) -> int:
        """Where an answer ends whose turn, while it is the last, has more control tokens after it; 0 where it differs
        before its end.
        """
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, upto, strict=False)))
        ends = [match.end() for match in self.turn_end.finditer(upto, 0, shared)]
        return ends[-1] if ends and not self.turn_end.sub("", upto[ends[-1] :]).strip() else 0

    def prompt(self, way: str, turns: Sequence[TemplateMessage], tools: list[dict[str, Any]] | None) -> str | None:
        """One prompt by its way, one of `PROMPT_WAYS`; None where the template has none of that kind."""
        if way in SWITCHES:
            return self.render(turns, tools, reply=True, **SWITCHES[way]).text if self.can_switch_thinking else None
        if way == "cut" and not self.may_open_reasoning:
            return None
        own = self.render(turns, tools, reply=True).text
        if way == "own":
            return own
        opened = OPEN_REASONING.search(own)
        return own[: opened.start()] if opened else None

    def _twin_text(self, twin: Twin, render: Callable[[], str], way: tuple[Any, ...]) -> str:
        """The twin as the template writes it; a record of a shape that was there before is not rendered again."""
        if not twin.texts:
            return render()
        key = twin.key
        if key is None:
            return render()
        key = (key, way, self.closing, self.source)
        if key not in self._twins:
            if len(self._twins) >= MAX_CACHED_TWINS:
                self._twins.clear()
            self._twins[key] = render()
        return self._twins[key]


# a template's own prompt; those it has for answers without and with reasoning; its own without the mark that opens a
# thought
PROMPT_WAYS: Final = ("own", "no thinking", "thinking", "cut")


def content_parts(content: Any) -> list[dict[str, str]]:
    """A content as the one part of a list."""
    return [{"type": "text", "text": content}] if content else []


def with_json_arguments(turn: TemplateMessage) -> TemplateMessage:
    """A turn whose calls have their arguments as JSON text."""
    if not turn.get("tool_calls"):
        return turn
    calls = [
        {**call, "function": {**call["function"], "arguments": as_json(call["function"].get("arguments"))}}
        for call in turn["tool_calls"]
    ]
    return {**turn, "tool_calls": calls}


def as_json(value: Any) -> str:
    """A value as JSON text; a text as it is."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def of_turn(turn: int) -> str:
    """The name of a turn in messages, counted from 1."""
    return translate("turn {turn}", turn=turn + 1) if turn >= 0 else translate("a tool")


PLURALS: Final = {
    "system": message("system turns"),
    "user": message("user turns"),
    "assistant": message("answers"),
    "tool": message("tool turns"),
}


def check_texts(written: WrittenTurns, *, learned: Set[int] = frozenset(), elsewhere: Set[int] = frozenset()) -> None:
    """Refuse a record of which something would not reach the model.

    Reasoning of earlier answers may be left out, as it is when a model is asked.

    Args:
        written: The record.
        learned: Answers that are learned of this text, all parts of which must be in it.
        elsewhere: Answers that are learned of another text of the record.

    Raises:
        DataError: Naming the turn.
    """
    for number, entry in enumerate(written.twin.texts):
        if number in written.seen or entry.turn in elsewhere - learned:
            continue
        turn = written.twin.turns[entry.turn] if entry.turn >= 0 else {"role": "tools"}
        if entry.part == "reasoning" and entry.turn not in learned:
            continue
        what = {"reasoning": translate("the reasoning"), "call": translate("tool calls")}.get(
            entry.part, PLURALS.get(turn["role"], "tools")
        )
        advice = ""
        if entry.part == "reasoning" and "reasoning_content" in turn:
            what, advice = "reasoning_content", translate("write it into the content between <think> and </think>, ")
        raise DataError(
            translate(
                "the chat template leaves out {what} ({turn}), so the model would learn answers to "
                "what it never saw, or never learn it; {advice}try data.template=chatml, or drop "
                "such records",
                what=what,
                turn=of_turn(entry.turn),
                advice=advice,
            )
        )
    if written.lost:
        entry = written.twin.texts[written.lost[0]]
        raise DataError(
            translate(
                "the chat template writes {turn} otherwise than the record has it, so a part of it "
                "would not reach the model in its place; try data.template=chatml, or drop the record",
                turn=of_turn(entry.turn),
            )
        )
    if (moved := moved_turn(written.places, written.twin)) is not None:
        raise DataError(
            translate(
                "the chat template writes {moved} before an earlier turn; try data.template=chatml, or drop the record",
                moved=of_turn(moved),
            )
        )
    if not written.exact:
        check_characters(written)


def check_characters(written: WrittenTurns) -> None:
    """Refuse a text with a private-use character that the record does not hold: some template leaked a mark."""
    odd = {letter for letter in written.text if "\ue000" <= letter <= "\uf8ff"}
    if odd and (stray := odd - set("".join(entry.text for entry in written.twin.texts))):
        raise DataError(
            translate("the chat template writes {stray!r}, which no text of the record holds", stray=sorted(stray))
        )
