"""The chat template of a tokenizer: conversations to token ids and labels, with every promise about the ids checked.

Control tokens that a user's text spells out are encoded as ordinary text; prompts are token prefixes; answers end with
an end-of-turn token; every text of a record is in what the model sees.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from itertools import takewhile
from typing import Any, Final, NamedTuple, get_args

import numpy as np
from transformers import AddedToken, PreTrainedTokenizerBase

from tunelab.config.schema import TrainOn
from tunelab.data.conversation import END_OF_REASONING, Conversation, after_reasoning
from tunelab.data.examples import IGNORE
from tunelab.data.exchanges import Exchange, ExchangeFrame, LabelledExchanges, TokenMark
from tunelab.data.template_rendering import (
    PROBE_EXCHANGE,
    PROBE_TOOL,
    PROBE_WORD,
    RenderedText,
    TemplateMessage,
    find_turn_ends,
    fix_date,
    fixed_date,
    has_generation_blocks,
    load_template,
    to_template_messages,
    without_fixed_date,
    without_generation_blocks,
    writes_date,
)
from tunelab.data.text_parts import FlatIds, PartEncoder, WholeEncoder, texts_to_check
from tunelab.data.text_placement import (
    MATCH_NOTHING,
    REASONING_MARK,
    REASONING_NAMES,
    TAG_LETTERS,
    Span,
    find_spans,
    make_twin,
    written_forms,
)
from tunelab.data.truncation import LabelledIds
from tunelab.data.turn_writer import (
    MAX_CACHED_TWINS,
    MAX_FILLED_CHARACTERS,
    OPEN_REASONING,
    PROMPT_WAYS,
    STAND_IN_CHARACTERS,
    SWITCHES,
    TurnWriter,
    WrittenShape,
    WrittenTurns,
    check_texts,
)
from tunelab.errors import ConfigError, DataError
from tunelab.language.translation import message, translate

TRAIN_ON: Final[tuple[str, ...]] = get_args(TrainOn)


class MarkedText(NamedTuple):
    """A text with what is learned of it.

    Attributes:
        text: As the model will see it.
        literal: Stretches in which the record spells out control tokens.
        answers: Of each learned answer its turn, and its first and last character.
    """

    text: str
    literal: list[Span]
    answers: dict[int, Span]


class ChatTemplate:
    """One tokenizer with one template.

    The ids of a record are the tokenizer's encoding of what the template writes, so training and inference see the
    same tokens.  Checked at construction on a canned exchange and again for every record: every text of it is there,
    in order; one begin token at most; every learned answer ends with a learned end-of-turn token, and a prompt is a
    token prefix of its continuation.

    An answer is what the text gains over its prompt; a template's own `{% generation %}` block says the same where it
    starts where the prompt ends, and where it ends is then up to it.  A template that writes a turn otherwise once
    others follow (without its reasoning, say) gives several sequences, each as the model is asked for its answer.
    Control tokens written out inside a message ("</s>" in a text about tokenizers) are encoded as ordinary text.

    The shipped chatml and llama3 use their markers as tokens where the vocabulary has them.  Else markers are
    ordinary text and the end-of-sequence token ends a turn, so that an end is always one token that can be learned.

    Attributes:
        source: The template, Jinja.
        origin: Where it is from, for the user.
        stop_ids: Ids that end a generation: the end-of-turn tokens and the end-of-sequence token, sorted.
        bos: Id of the begin token that leads every sequence, or None.
        prompt_way: Which of the template's prompts a model is asked with, one of `PROMPT_WAYS`.
        tails_left_out: Records so far whose turns after their last answer are left out, since the template writes that
            answer otherwise before them than a model is asked for it.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        name: str | None = None,
        *,
        reasons: bool = True,
        day: date | None = None,
    ) -> None:
        """Take a template and probe it.

        Args:
            tokenizer: Is only read.
            name: "auto" or None for the tokenizer's own (else "plain"), a shipped name, or a .jinja file.
            reasons: Whether answers may begin with reasoning.  Where none does, and the template's own prompt opens a
                thought, its prompt for answers without one is taken.
            day: The date that a template writes which reads the clock; None for the one fixed in it, else today.

        Raises:
            ConfigError: If there is no such template, or no answer could be learned with it; says why.
        """
        self.tokenizer = tokenizer
        source, self.origin = load_template(tokenizer, name)
        if writes_date(source) and (day is not None or fixed_date(source) is None):
            source = fix_date(source, day or date.today())  # as the clock of the template would say
        self._plain = LiteralTextEncoder(tokenizer)
        self._writer = TurnWriter(tokenizer, source)
        self._shapes: dict[tuple[Any, ...], tuple[WrittenShape, dict[int, Span]] | None] = {}
        self._tools_seen: bool | None = None
        added = tokenizer.added_tokens_decoder.items()
        self._reasoning_ends = {token for token, entry in added if END_OF_REASONING.fullmatch(entry.content)}
        self.prompt_way = "own"
        self.tails_left_out = 0
        try:
            self._writer.parts = self._takes_parts()
            self.bos = self._leading_bos()
            ends = find_turn_ends(self._writer.render, self._ids, tokenizer)
            self.stop_ids = ends.tokens
            self._writer.closing, self._writer.closing_call = ends.closing, ends.closing_call
            self._writer.turn_end = re.compile(
                "|".join(re.escape(str(tokenizer.convert_ids_to_tokens(token))) for token in self.stop_ids)
            )
            self._plain.protect(self.stop_ids + self._frame_ids())
            self._writer.control = self._plain.control
            self._has_blocks = has_generation_blocks(source)
            self._blocks = self._has_blocks and self._blocks_start_where_prompts_end()
            self.encode(PROBE_EXCHANGE)
            if not reasons:
                self.prompt_way = self._fitting_way(PROBE_EXCHANGE, 1) or "own"
            self.prompt_ids(PROBE_EXCHANGE)
        except DataError as fault:
            raise ConfigError(
                translate("{origin} cannot be used for training: {fault}", origin=self.origin, fault=fault)
            ) from None

    @property
    def source(self) -> str:
        """The template, Jinja."""
        return self._writer.source

    @property
    def date(self) -> str | None:
        """The day that the template writes, as 2026-11-28; None where it writes none."""
        return fixed_date(self.source)

    @property
    def dated_template(self) -> str:
        """The template as it writes the prompts here, for readers that do not know `{% generation %}`."""
        return prompting_template(without_generation_blocks(self.source), self.prompt_way)

    @property
    def export_template(self) -> str:
        """The template for other readers: `{% generation %}` tags, which several do not know, taken out.

        A date is that of the day again; a prompt is the one that this model was trained for.
        """
        return prompting_template(without_fixed_date(without_generation_blocks(self.source)), self.prompt_way)

    def describe(self) -> list[str]:
        """Template, begin and end tokens, and how trained tokens are marked: a line each."""
        names = [str(self.tokenizer.convert_ids_to_tokens(token)) for token in self.stop_ids]
        begin = "none" if self.bos is None else repr(self.tokenizer.convert_ids_to_tokens(self.bos))
        mask = (
            translate("its generation blocks")
            if self._blocks
            else translate("the difference to the prompt, verified per record")
        )
        return [
            translate("template: {origin}", origin=self.origin),
            translate("begin: {begin}; ends: {names}", begin=begin, names=", ".join(names)),
            translate("learned: by {mask}", mask=mask),
        ]

    def encode(self, conversation: Conversation | str, train_on: str = "answers") -> LabelledIds:
        """Ids and labels of a record that is one sequence; `sequences` takes any.

        Args:
            conversation: Turns, or a plain text, of which everything is learned.
            train_on: "answers" (every assistant turn not marked `train: false`), "last_answer", or "all" tokens
                but those of assistant turns marked `train: false`.

        Returns:
            T ids, and T labels equal to the ids or `IGNORE`; position t labels token t.

        Raises:
            DataError: If a promise of the class cannot be kept for this record in one sequence.
        """
        sequences = self.sequences(conversation, train_on)
        if len(sequences) > 1:
            raise DataError(
                translate(
                    "the template writes a turn differently once the turn is there that follows it, so "
                    "the answers of this record are {count} [sequence|sequences] and not one; try "
                    "data.train_on=last_answer, or data.template=chatml",
                    count=len(sequences),
                )
            )
        return sequences[0]

    def sequences(self, conversation: Conversation | str, train_on: str = "answers") -> list[LabelledIds]:
        """Ids and labels of one record: one sequence, or several where the template rewrites the past.

        Each answer is learned once, in a text that begins with the prompt that a model is asked with for it.

        Args:
            conversation: Turns, or a plain text, of which everything is learned.
            train_on: As for `encode`.

        Raises:
            DataError: If a promise of the class cannot be kept for this record.
        """
        return self._sequences(conversation, train_on, self._learned_texts(conversation, train_on))

    def sequences_of_many(
        self, records: Sequence[Conversation | str | Exchange], train_on: str = "answers"
    ) -> list[list[LabelledIds] | DataError]:
        """`sequences` of each record, or why it has none; the texts of all are tokenized together, on every core."""
        frame = self._exchange_frame(train_on)
        marked: list[str | list[MarkedText] | DataError] = []  # of an exchange in a known frame its text
        texts: dict[str, None] = {}
        for record in records:
            if isinstance(record, Exchange) and frame and (filled := frame.fill(record)):
                marked.append(filled)
                texts[filled] = None
                continue
            try:
                learned = self._learned_texts(as_conversation(record), train_on)
                marked.append(learned)
            except DataError as fault:
                marked.append(fault)
                continue
            for text in learned:
                if not text.literal:
                    texts[text.text] = None
                    texts |= dict.fromkeys(self._plain.pieces_for_prefixes(text.text, self._cuts(text)))
        with self._plain.together(list(texts)):
            return [self._outcome(*pair, train_on, frame) for pair in zip(records, marked, strict=True)]

    def labelled_exchanges(self, records: Sequence[Exchange | None], train_on: str) -> LabelledExchanges | None:
        """Those of some records that are plain exchanges, tokenized and labelled together, as `sequences` does it.

        None until such records have gone through every check, and where they cannot be labelled so.
        """
        frame = self._exchange_frame(train_on)
        if frame is None:
            return None
        filled = [record and frame.fill(record) for record in records]
        places = [place for place, text in enumerate(filled) if text]
        flat = self._plain.flat_ids([text for text in filled if text])
        return None if flat is None else frame.label_many(np.array(places, np.int64), flat)

    def _outcome(
        self,
        record: Conversation | str | Exchange,
        known: str | list[MarkedText] | DataError,
        train_on: str,
        frame: ExchangeFrame | None,
    ) -> list[LabelledIds] | DataError:
        """The sequences of one of many records, or why it has none."""
        if isinstance(known, DataError):
            return known
        try:
            if isinstance(known, str):
                labelled = frame.label(self._plain.ids(known)) if frame else None
                return [labelled] if labelled else self.sequences(as_conversation(record), train_on)
            return self._sequences(as_conversation(record), train_on, known)
        except DataError as fault:
            return fault

    def _exchange_frame(self, train_on: str) -> ExchangeFrame | None:
        """What is written around one question and its answer.

        None until such records have gone through every check, and where what is learned depends on their texts.
        """
        if train_on == "all" or self._plain.checks_left or not self._writer.texts_untouched:
            return None
        question, answer = Exchange("q", "a")
        twin = make_twin(self._turns(Exchange(question, answer).conversation()), None, self._writer.control)
        shape, spans = self._shapes.get((twin.key, (1,))) or (None, {})
        if shape is None or shape.numbers != [0, 1]:
            return None
        before, between, after = shape.literals
        first = len(before) + len(question)  # character behind the question, then behind the answer
        last = first + len(between) + len(answer)
        text = f"{before}{question}{between}{answer}{after}"
        start = spans[1][0] - STAND_IN_CHARACTERS + len(question)  # with the texts in place of their stand-ins
        end = answer_end(text, start, spans[1][1] - 2 * STAND_IN_CHARACTERS + len(question) + len(answer))
        opening = self._plain.mark(text, start, first)
        closing = None if end == len(text) else self._plain.mark(text, end, last)
        if opening is None or not first <= start <= last - len(answer) or (closing is None and end < len(text)):
            return None
        letters = "".join(sorted({*TAG_LETTERS, *(token[0] for token in self._plain.spelled)}))
        return ExchangeFrame(
            (before, between, after),
            opening,
            closing,
            frozenset(self.stop_ids),
            self.bos,
            re.compile(f"[{re.escape(letters)}]"),
            self._writer.control,
        )

    def _learned_texts(self, conversation: Conversation | str, train_on: str) -> list[MarkedText]:
        """The texts in which answers are learned; none of a record of which all is."""
        if train_on not in TRAIN_ON:
            raise ValueError(
                translate("train_on is {train_on!r}; known: {names}", train_on=train_on, names=", ".join(TRAIN_ON))
            )
        if isinstance(conversation, str):
            return []
        learned = conversation.trained_turns(train_on)
        if not learned:
            raise DataError(translate("no assistant turn is learned; a record that teaches nothing is best dropped"))
        if train_on == "all":
            return []
        turns = self._turns(conversation)
        return self._known_shape(turns, conversation.tools, learned) or self._marked_texts(
            turns, conversation.tools, learned
        )

    def _known_shape(
        self, turns: list[TemplateMessage], tools: list[dict[str, Any]] | None, learned: list[int]
    ) -> list[MarkedText] | None:
        """The one text of a record whose shape was there before, written by a template that looks into no text.

        Which answers a model would be asked for, and whether all texts are there, is the same for all records of a
        shape; the first of them goes through every check.  None where that is not known.
        """
        writer = self._writer
        several_prompts = writer.can_switch_thinking or writer.may_open_reasoning  # of which each text decides
        if not writer.texts_untouched or writer.parts or tools or several_prompts:
            return None
        twin = make_twin(turns, tools, self._writer.control)
        key = (twin.key, tuple(learned))
        if key[0] is None or not twin.texts or sum(len(entry.text) for entry in twin.texts) > MAX_FILLED_CHARACTERS:
            return None
        if key not in self._shapes:
            self._shapes[key] = None
            texts = self._marked_texts(turns, tools, learned)
            written = self._writer.write(turns, tools, blocks=self._has_blocks)
            shape = WrittenShape.of(RenderedText(written.twin_text, []))
            if len(texts) == 1 and self._writer.texts_untouched and texts[0].text == written.text:
                spans = {
                    turn: (shape.unmoved(start, written.places), shape.unmoved(end, written.places))
                    for turn, (start, end) in texts[0].answers.items()
                }
                moved = {
                    turn: (shape.moved(start, written.places), shape.moved(end, written.places))
                    for turn, (start, end) in spans.items()
                }
                if moved == texts[0].answers:
                    self._shapes[key] = shape, spans
            if len(self._shapes) > MAX_CACHED_TWINS:
                self._shapes.clear()
            return texts
        if (known := self._shapes[key]) is None:
            return None
        shape, spans = known
        text, _, places = shape.fill(twin)
        control = self._writer.control
        literal = sorted({span for _, start, end in places for span in find_spans(control, text, start, end)})
        answers = {turn: (shape.moved(a, places), shape.moved(b, places)) for turn, (a, b) in spans.items()}
        return [MarkedText(text, literal, answers)]

    def _sequences(self, conversation: Conversation | str, train_on: str, texts: list[MarkedText]) -> list[LabelledIds]:
        if isinstance(conversation, str):
            ids = self._text_ids(conversation)
            return [(ids, list(ids))]
        if train_on == "all":
            return [self._whole(self._turns(conversation), conversation.tools, conversation.trained_turns(train_on))]
        return [self._answers(marked) for marked in texts]

    def prompt_ids(self, conversation: Conversation) -> list[int]:
        """Ids a model is given to produce the last assistant turn: all before it, and the start of an answer.

        Raises:
            DataError: If they are no prefix of the ids that are learned, so training and use would differ.
        """
        last = conversation.last_assistant_turn()
        if last is None:
            return self.reply_ids(conversation)
        turns, tools = self._turns(conversation), conversation.tools
        marked = self._marked_texts(turns[: last + 1], tools, [last])[-1]
        start, _ = marked.answers[last]
        prompt, whole = (self._plain.ids(text, marked.literal) for text in (marked.text[:start], marked.text))
        check_token_prefix(self.tokenizer, prompt, whole, translate("the prompt of the last answer"))
        return prompt

    def reply_ids(self, conversation: Conversation) -> list[int]:
        """Ids a model is given to say what comes next in a conversation, whoever spoke last."""
        turns, tools = self._turns(conversation), conversation.tools
        text, literal = self._prompt(turns, tools)
        return self._plain.ids(text, literal)

    def reference_answer(self, conversation: Conversation) -> str:
        """The last assistant turn as text, without its reasoning and blank ends; calls as the template writes them."""
        last = conversation.last_assistant_turn()
        if last is None:
            raise DataError(translate("there is no assistant turn to compare with"))
        if not conversation.messages[last].tool_calls:
            return after_reasoning(conversation.messages[last].content.strip())
        marked = self._marked_texts(self._turns(conversation)[: last + 1], conversation.tools, [last])[-1]
        _, labels = self._answers(marked)
        learned = [label for label in labels if label != IGNORE]
        return self.final_answer(learned[:-1])

    def final_answer(self, ids: list[int]) -> str:
        """An answer as text, without its reasoning and blank ends."""
        ends = [place for place, token in enumerate(ids) if token in self._reasoning_ends]
        if ends and (text := str(self.tokenizer.decode(ids[ends[-1] + 1 :], skip_special_tokens=True)).strip()):
            return text
        return after_reasoning(str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip())

    def _marked_texts(
        self, turns: list[TemplateMessage], tools: list[dict[str, Any]] | None, learned: Sequence[int]
    ) -> list[MarkedText]:
        """The texts of a record in which each of some answers is learned once, as a model is asked for it.

        One text, where the template writes every turn alike whatever follows.  Else the answers that the whole text
        cannot teach get texts of their own, which end with them.
        """
        texts: list[MarkedText] = []
        pending, upto = list(learned), len(turns)
        while pending:
            said, last = turns[:upto], pending[-1]
            if upto == last + 1:
                marked = self._text_up_to_answer(said, tools, pending, set(learned))
            else:
                marked = self._text_with_answers(said, tools, pending, set(learned))
                if last not in marked.answers:
                    self.tails_left_out += len(turns) == upto
                    upto = last + 1
                    continue
            texts.append(marked)
            pending = [turn for turn in pending if turn not in marked.answers]
            upto = pending[-1] + 1 if pending else 0
        return texts[::-1]

    def _text_with_answers(
        self, turns: list[TemplateMessage], tools: Any, pending: Sequence[int], learned: set[int]
    ) -> MarkedText:
        """The text of turns, and those answers in it that a model would be asked for with what stands before them."""
        written = self._writer.write(turns, tools, blocks=self._has_blocks)
        answers = [turn for turn, said in enumerate(turns) if said["role"] == "assistant"]
        blocks = dict(zip(answers, written.blocks, strict=True)) if len(written.blocks) == len(answers) else {}
        spans: dict[int, Span] = {}
        for turn in pending:
            if not written.missing(turn) and (added := self._writer.added_spans(written, turns, tools, turn)):
                start, end = self._fitting_span(written.text, added)
                block = blocks.get(turn, (-1, -1))
                spans[turn] = block if block[0] == start else (start, end)
        if pending[-1] in spans:
            self._check_tools(written, tools)
            check_texts(written, learned=set(spans), elsewhere=learned)
        return MarkedText(written.text, self._writer.literal_spans(written), spans)

    def _text_up_to_answer(
        self, turns: list[TemplateMessage], tools: Any, pending: Sequence[int], learned: set[int]
    ) -> MarkedText:
        """The text of turns that end with an answer to be learned.

        Raises:
            DataError: If the template cannot teach it.
        """
        last = len(turns) - 1
        marked = self._text_with_answers(turns, tools, pending, learned)
        if last in marked.answers:
            return marked
        written = self._writer.write(turns, tools)
        prompt = self._writer.write(turns[:last], tools, reply=True)
        body = self._answer_after(prompt, written, turns)
        if body is None:
            check_texts(written, learned={last}, elsewhere=learned)
            raise DataError(
                translate(
                    "the template writes the text before turn {last} differently once the turn is there, "
                    "so what is learned is not what a model is asked; try data.template=chatml",
                    last=last + 1,
                )
            )
        self._check_tools(prompt, tools)
        check_texts(prompt, elsewhere=learned)
        shift = len(prompt.text)
        literal = [(start + shift, end + shift) for start, end in body[1]]
        text = prompt.text + body[0]
        return MarkedText(text, self._writer.literal_spans(prompt) + literal, {last: (shift, len(text))})

    def _answer_after(
        self, prompt: WrittenTurns, written: WrittenTurns, turns: list[TemplateMessage]
    ) -> tuple[str, list[Span]] | None:
        """What the model is to write after a prompt with which the written text does not begin; None if unknown."""
        last = len(turns) - 1
        span, missing = written.turn_span(last), written.missing(last)
        if span is None or not written.exact:
            return None
        if not missing:  # the past was rewritten: the answer is what follows its header
            before = self._writer.render(turns[:last], None if not written.twin.tools else written.twin.tools)
            header = prompt.text[len(before.text) :] if prompt.text.startswith(before.text) else ""
            at = written.text.rfind(header, 0, span[0]) if header.strip() else -1
            if at < 0:
                return None
            start = at + len(header)
            spelled = [s for s in self._writer.literal_spans(written) if s[0] >= start]
            return written.text[start:], [(first - start, end - start) for first, end in spelled]
        opened = OPEN_REASONING.search(prompt.text)
        if missing != ["reasoning"] or not opened or turns[last].get("tool_calls"):
            return None
        body = open_answer(turns[last], opened.group(1))  # the prompt opens a thought that the template never writes
        return body + written.text[span[1] :], find_spans(self._plain.control, body)

    def _whole(self, turns: list[TemplateMessage], tools: Any, learned: Sequence[int]) -> LabelledIds:
        """A whole conversation of which all is learned but the answers that are marked as not learned."""
        answers = [turn for turn, said in enumerate(turns) if said["role"] == "assistant"]
        marked = self._text_with_answers(turns, tools, answers, set(answers))
        if odd := [turn for turn in answers if turn not in marked.answers]:
            raise DataError(
                translate(
                    "the template writes the text before turn {odd} differently once the turn is there, "
                    "so what is learned is not what a model is asked; try data.train_on=last_answer, or "
                    "data.template=chatml",
                    odd=odd[-1] + 1,
                )
            )
        ids, spans = self._token_spans(marked)
        labels = list(ids)
        for turn in set(answers) - set(learned):
            start, stop = spans[turn]
            labels[start:stop] = [IGNORE] * (stop - start)
        return ids, labels

    def _answers(self, marked: MarkedText) -> LabelledIds:
        """Ids and labels of a text of which its answers are learned."""
        ids, spans = self._token_spans(marked)
        labels = [IGNORE] * len(ids)
        for start, stop in spans.values():
            labels[start:stop] = ids[start:stop]
        return ids, labels

    def _token_spans(self, marked: MarkedText) -> tuple[list[int], dict[int, Span]]:
        """All ids, and for each answer where its trained tokens start and stop (one past the last)."""
        text = marked.text
        ids = self._plain.ids(text, marked.literal)
        if self.bos is not None and ids[:2] == [self.bos, self.bos]:
            raise DataError(translate("the text starts with two begin tokens; take the one out of the first turn"))
        spans = {}
        for turn, (start, block_end) in marked.answers.items():
            end = answer_end(text, start, block_end)
            before = self._prefix_length(marked, start, ids, message("the prompt of turn {turn}"), turn)
            after = len(ids)
            if end < len(text):
                after = self._prefix_length(marked, end, ids, message("the text up to the end of turn {turn}"), turn)
            stop = find_answer_end(self.tokenizer, ids, (before, after), self.stop_ids)
            if stop is None:
                raise DataError(
                    translate(
                        "turn {turn} does not close with an end-of-turn token, so a model would not learn to "
                        "stop; try data.train_on=last_answer, or data.template=chatml",
                        turn=turn + 1,
                    )
                )
            spans[turn] = before, stop
        return ids, spans

    def _cuts(self, marked: MarkedText) -> list[int]:
        """The ends of the prefixes that `_token_spans` encodes."""
        ends = [answer_end(marked.text, start, block_end) for start, block_end in marked.answers.values()]
        return [*(start for start, _ in marked.answers.values()), *(end for end in ends if end < len(marked.text))]

    def _fitting_span(self, text: str, spans: Sequence[Span]) -> Span:
        """The first span that starts where a token of the text does; the first of all where none does."""
        if len(spans) > 1:
            ids = self._ids(text)
            for start, end in spans:
                prefix = self._ids(text[:start])
                if ids[: len(prefix)] == prefix:
                    return start, end
        return spans[0]

    def _prompt(self, turns: list[TemplateMessage], tools: Any) -> tuple[str, list[Span]]:
        """The text that a model is asked with for the answer to some turns."""
        written = self._writer.write(turns, tools, reply=True, **SWITCHES.get(self.prompt_way, {}))
        self._check_tools(written, tools)
        check_texts(written)
        literal = self._writer.literal_spans(written)
        opened = OPEN_REASONING.search(written.text) if self.prompt_way == "cut" else None
        return (written.text[: opened.start()] if opened else written.text), literal

    def _fitting_way(self, conversation: Conversation, turn: int) -> str | None:
        """The prompt that the ids of an answer begin with; None if there is none."""
        turns = self._turns(conversation)
        whole = self._writer.render(turns, conversation.tools).text
        ids = self._ids(whole)
        for way in PROMPT_WAYS:
            prompt = self._writer.prompt(way, turns[:turn], conversation.tools)
            if prompt is not None and whole.startswith(prompt):
                prefix = self._ids(prompt)
                if ids[: len(prefix)] == prefix:
                    return way
        return None

    def _prefix_length(self, marked: MarkedText, end: int, ids: list[int], what: str, turn: int) -> int:
        prefix = self._plain.prefix_ids(marked.text, end, ids, marked.literal)
        if ids[: len(prefix)] != prefix:  # else no message is made, which would be one for each row
            check_token_prefix(self.tokenizer, prefix, ids, translate(what, turn=turn + 1))
        return len(prefix)

    def _text_ids(self, text: str) -> list[int]:
        """A plain text between the begin and the end of a sequence, as in pre-training."""
        if not text.strip():
            raise DataError(translate("the text is empty; drop it"))
        if self.tokenizer.eos_token_id is None:
            raise DataError(translate("the tokenizer has no end-of-sequence token, so texts would run into each other"))
        begin = [] if self.bos is None else [self.bos]
        return [*begin, *self._plain.ids(text, find_spans(self._plain.control, text)), self.tokenizer.eos_token_id]

    def _turns(self, conversation: Conversation) -> list[TemplateMessage]:
        return to_template_messages(conversation)

    def _ids(self, text: str) -> list[int]:
        return self._plain.ids(text)

    def _check_tools(self, written: WrittenTurns, tools: list[dict[str, Any]] | None) -> None:
        """Refuse a text in which the functions that a record offers are not written."""
        if not tools:
            return
        if self._tools_seen is None:
            try:
                exchange = self._turns(PROBE_EXCHANGE)
                self._tools_seen = PROBE_WORD in self._writer.render(exchange, [PROBE_TOOL]).text
            except DataError:
                self._tools_seen = True  # not silent: the record itself meets the template's own refusal
        names = (str(tool["function"]["name"]) for tool in tools)
        if not self._tools_seen or not all(any(f in written.text for f in written_forms(name)) for name in names):
            raise DataError(
                translate(
                    "the chat template leaves out tools, so the model would learn answers to what it "
                    "never saw; try data.template=chatml, or drop such records"
                )
            )

    def _takes_parts(self) -> bool:
        """Whether the template writes contents as lists of parts, and none as texts."""
        turns, answer = self._turns(PROBE_EXCHANGE), PROBE_EXCHANGE.messages[1].content
        try:
            if answer in self._writer.render(turns, None).text:
                return False
        except DataError as fault:
            first = fault
        else:
            first = DataError(translate("an answer does not appear in the text it writes"))
        self._writer.parts = True
        try:
            if answer in self._writer.render(turns, None).text:
                return True
        except DataError:
            pass
        raise first

    def _leading_bos(self) -> int | None:
        """The begin token that leads the template's text.

        Where the tokenizer puts one before any text and the template does not write it, it is added to the
        template, so that training, inference and the exported model agree.
        """
        bos = self.tokenizer.bos_token_id
        if bos is None:
            return None
        if self._ids(self._writer.render(self._turns(PROBE_EXCHANGE), None).text)[0] == bos:
            return int(bos)
        if self.tokenizer("a")["input_ids"][0] != bos:
            return None
        self._writer.source = "{{ bos_token }}" + self._writer.source
        return int(bos)

    def _frame_ids(self) -> list[int]:
        """Control tokens around the turns."""
        ids = self._ids(self._writer.render(self._turns(PROBE_EXCHANGE), None, reply=True).text)
        return [token for token in ids if token in self.tokenizer.added_tokens_decoder]

    def _blocks_start_where_prompts_end(self) -> bool:
        turns = self._turns(PROBE_EXCHANGE)
        text, spans = self._writer.render(turns, None, blocks=True)
        return len(spans) == 1 and text[: spans[0][0]] == self._writer.render(turns[:1], None, reply=True).text


def as_conversation(record: Conversation | str | Exchange) -> Conversation | str:
    """A record as turns, or as plain text."""
    return record.conversation() if isinstance(record, Exchange) else record


def answer_end(text: str, start: int, block_end: int) -> int:
    """The end of an answer in a text, without the blanks before the end of its block."""
    return max(start, len(text[:block_end].rstrip()))


def prompting_template(source: str, way: str) -> str:
    """The template whose own prompt is one of `PROMPT_WAYS`."""
    if way in SWITCHES:
        value = str(SWITCHES[way]["enable_thinking"]).lower()
        head = f"{{%- if enable_thinking is not defined %}}{{%- set enable_thinking = {value} %}}{{%- endif %}}\n"
        return head + source
    if way != "cut":
        return source
    # all that the template writes, without the mark that opens a thought at the end of a prompt
    inner = source.removesuffix("\n")
    cut = "".join(
        f"{{%- if written.text.endswith({mark!r}) %}}"
        f"{{%- set written.text = written.text[:-{len(mark)}] %}}{{%- endif %}}"
        for mark in OPENED_PROMPTS
    )
    return (
        f"{{%- set whole %}}\n{inner}{{% endset %}}{{%- set written = namespace(text=whole) %}}"
        f"{{%- if add_generation_prompt %}}{cut}{{%- endif %}}{{{{- written.text }}}}"
    )


OPENED_PROMPTS: Final = tuple(f"<{name}>{blank}" for name in REASONING_NAMES.split("|") for blank in ("\n", ""))


def open_answer(turn: TemplateMessage, mark: str) -> str:
    r"""An answer with its reasoning, after a prompt that has opened the thought with `mark` already.

    Example:
        >>> open_answer({"content": "<think>\nHm\n</think>\n\nHo"}, "<think>")
        'Hm\n</think>\n\nHo'
    """
    if reasoning := turn.get("reasoning_content"):
        close = mark.replace("<", "</", 1) if mark.startswith("<") else mark[0] + "/" + mark[1:]
        return f"{reasoning.strip()}\n{close}\n\n{turn['content'].strip()}"
    return str(turn["content"]).lstrip().removeprefix(mark).lstrip("\n").rstrip()


def check_token_prefix(tokenizer: PreTrainedTokenizerBase, prefix: list[int], ids: list[int], what: str) -> None:
    """Refuse ids that do not start with `prefix`, because a tokenizer joined the end of it with what follows.

    Raises:
        DataError: Showing where the two part.
    """
    if ids[: len(prefix)] == prefix:
        return
    at = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prefix, ids, strict=False)))
    apart, joint = (tokenizer.decode(part[at : at + 3]) for part in (prefix, ids))
    raise DataError(
        translate(
            "{what} is no token prefix of the whole: at token {at} it reads {apart!r}, in the "
            "whole {joint!r}; a model asked with it would see other tokens than it learned; end "
            "prompts in a newline or a marker",
            what=what,
            at=at,
            apart=apart,
            joint=joint,
        )
    )


def find_answer_end(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], stretch: tuple[int, int], stops: Collection[int]
) -> int | None:
    """The end of an answer's learned tokens: one past the token that ends the turn; None if none does.

    Args:
        tokenizer: Tells blanks from text.
        ids: The whole record, T tokens.
        stretch: First token of the answer, and one past the last; may or may not take in the end-of-turn token.
        stops: Ids that end a turn.  Blanks may stand between the text and that token, and after it.
    """

    def is_blank(token: int) -> bool:
        return token not in stops and not str(tokenizer.decode([token])).strip()

    start, end = stretch
    inside = next((t for t in range(end - 1, start - 1, -1) if ids[t] in stops), None)
    if inside is not None:
        return inside + 1 if all(map(is_blank, ids[inside + 1 : end])) else None
    after = end + sum(1 for _ in takewhile(is_blank, ids[end:]))
    return after + 1 if after < len(ids) and ids[after] in stops else None


MAX_RECENT_TEXTS: Final = 8  # whose ids are kept
MAX_TAILS: Final = 4096  # ends of prefixes whose ids are kept
PREFIX_CHECKS: Final = 16  # prefixes that are encoded whole too, in case a tokenizer is another than all that are known


class LiteralTextEncoder:
    """Text to ids, with control tokens that a user has spelled out as ordinary text.

    "</s>" in a text about tokenizers would end the turn half-way, and a second begin token would confuse the model.
    The text is the template's, untouched; where a record spells out such a token, the caller says so, and that stretch
    is encoded as the characters it is made of.

    Marks of reasoning ("<think>") are not protected, special or not: in an answer they are what is to be learned.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """No token is protected yet."""
        self.tokenizer = tokenizer
        self.control = MATCH_NOTHING  # matches every protected token
        self._newline: list[int] = []
        self._recent: dict[str, list[int]] = {}  # of the record at hand: text and prompt are needed more than once
        self._together: dict[str, list[int]] = {}  # of the records that are encoded together
        self._tails: dict[str, list[int] | None] = {}  # what follows the last border of a prefix
        self.borders: dict[str, int] = {}  # control tokens that no text is joined with, to their ids
        self.spelled: list[str] = []  # control tokens as text
        self.checks_left = PREFIX_CHECKS
        self._parts: PartEncoder | WholeEncoder | None = None  # made when many texts are encoded

    def protect(self, tokens: Iterable[int]) -> None:
        """Treat these ids (and begin and end of sequence) as control tokens from now on."""
        added = self.tokenizer.added_tokens_decoder
        spelled = {self.tokenizer.bos_token, self.tokenizer.eos_token} - {None}
        spelled |= {added[token].content for token in tokens if token in added}
        protected = (str(t) for t in spelled if not REASONING_MARK.fullmatch(str(t)))
        self.spelled = sorted(protected, key=len, reverse=True)
        if self.spelled:
            self.control = re.compile("|".join(map(re.escape, self.spelled)))
        self._newline = self._encode("\n")
        self.borders = {
            added[token].content: token
            for token in tokens
            if token in added and self.tokenizer.is_fast and is_border(added[token])
        }

    def pieces_for_prefixes(self, text: str, ends: Iterable[int]) -> Iterator[str]:
        """The texts that `prefix_ids` has to encode for some prefixes of a text, but for those that it knows."""
        for end in ends:
            start, border = self._last_border(text, end)
            piece = text[start:end]
            if not border or (len(piece) > len(border) and piece not in self._tails):
                yield piece

    def prefix_ids(self, text: str, end: int, ids: list[int], literal: Sequence[Span] = ()) -> list[int]:
        """Ids of the beginning of a text, as `ids` gives them.

        A control token parts what stands before it from what follows, whatever that is.  So up to the last one the ids
        are those of the whole text, and only the rest is encoded.

        Args:
            text: The whole text.
            end: Where its beginning ends.
            ids: The ids of the whole.
            literal: As for `ids`.
        """
        start, border = self._last_border(text, end)
        token = self.borders.get(border, -1)
        if literal or not border or ids.count(token) != text.count(border):
            return self.ids(text[:end], literal)
        piece = text[start:end]
        if piece not in self._tails:
            if len(self._tails) >= MAX_TAILS:
                self._tails.clear()
            tail = self.ids(piece)
            self._tails[piece] = tail[1:] if tail[:1] == [token] else None
        tail_ids = self._tails[piece]
        if tail_ids is None:
            return self.ids(text[:end])
        place = -1
        for _ in range(text.count(border, 0, start + len(border))):
            place = ids.index(token, place + 1)
        prefix = [*ids[: place + 1], *tail_ids]
        if self.checks_left:
            self.checks_left -= 1
            if prefix != self.ids(text[:end]):
                self.borders = {}  # this tokenizer looks across
                return self.ids(text[:end])
        return prefix

    def mark(self, text: str, place: int, first: int) -> TokenMark | None:
        """A place in a text by its last border, which must not stand before `first`; None where there is none."""
        start, border = self._last_border(text, place)
        if not border or start < first:
            return None
        token, ids = self.borders[border], self.ids(text[start:place])
        number = text.count(border, 0, start + len(border))
        return TokenMark(token, number, text.count(border), ids[1:]) if ids[:1] == [token] else None

    def _last_border(self, text: str, end: int) -> tuple[int, str]:
        """Where the last border before `end` starts, and which it is; 0 and an empty one where there is none."""
        start, border = -1, ""
        for content in self.borders:
            place = text.rfind(content, 0, end)
            if place > start:
                start, border = place, content
        return max(start, 0), border

    @contextmanager
    def together(self, texts: list[str]) -> Iterator[None]:
        """Within it the ids of these texts are known."""
        try:
            self._together = dict(zip(texts, self._encode_many(texts), strict=True))
        except (UnicodeError, TypeError, DataError):  # the record that it is will say so
            self._together = {}
        try:
            yield
        finally:
            self._together = {}

    def ids(self, text: str, literal: Sequence[Span] = ()) -> list[int]:
        """Ids of a text, without begin or end tokens of the tokenizer's own.

        Args:
            text: What is encoded.
            literal: Stretches of it that are ordinary text whatever they spell, in their order; those beyond the end
                of the text are left out.

        Raises:
            DataError: If the text is not valid Unicode, or such a stretch cannot be encoded as text.
        """
        inside = [span for span in literal if span[1] <= len(text)]
        if not inside:
            if text in self._together:
                return list(self._together[text])
            if text not in self._recent:
                if len(self._recent) >= MAX_RECENT_TEXTS:
                    self._recent.clear()
                self._recent[text] = self._encode(text)
            return list(self._recent[text])
        ids: list[int] = []
        done = 0
        for start, end in inside:
            if start > done:
                ids += self._encode_after(text[done:start]) if done else self._encode(text[:start])
            ids += self._encode_literal(text[start:end])
            done = end
        return ids + self._encode_after(text[done:]) if done < len(text) else ids

    def _encode_literal(self, token: str) -> list[int]:
        own = self.tokenizer.convert_tokens_to_ids(token)
        ids = self._encode_after(token, literal=True)
        if own in ids:  # an added token that is not special is matched all the same: cut it apart
            ids = [*self._encode_after(token[:1], literal=True), *self._encode_after(token[1:], literal=True)]
        if own in ids:
            raise DataError(
                translate(
                    "{token!r} in a text would be read as a control token; take it out, or drop the record", token=token
                )
            )
        return ids

    def _encode_after(self, piece: str, *, literal: bool = False) -> list[int]:
        """Encode what follows other text: after a newline, or some tokenizers put a space before it."""
        ids = self._encode("\n" + piece, literal=literal)
        if ids[: len(self._newline)] == self._newline:
            return ids[len(self._newline) :]
        return self._encode(piece, literal=literal)

    def _encode(self, text: str, *, literal: bool = False) -> list[int]:
        try:
            if not literal and (flat := self.flat_ids([text])) is not None:  # a long one
                return flat.lists()[0]
            encoding = self.tokenizer(text, split_special_tokens=literal, **PLAIN_IDS)
        except (UnicodeError, TypeError) as fault:
            raise DataError(
                translate("a text is not valid Unicode ({fault}); repair its encoding or drop the record", fault=fault)
            ) from None
        return list(encoding["input_ids"])

    def _encode_many(self, texts: list[str]) -> list[list[int]]:
        """Ids of each of many texts, which a tokenizer encodes on as many cores as it may."""
        if not texts:
            return []
        if (flat := self.flat_ids(texts)) is not None:
            return flat.lists()
        ids: list[list[int]] = self.tokenizer(texts, split_special_tokens=False, **PLAIN_IDS)["input_ids"]
        return ids

    def flat_ids(self, texts: list[str]) -> FlatIds | None:
        """Ids of many or long texts, without the wrapping that those of each get; None where that is not exact."""
        checked = texts_to_check(texts)
        if not checked or not self.tokenizer.is_fast:
            return None
        ids = self.tokenizer(checked, split_special_tokens=False, **PLAIN_IDS)["input_ids"]
        if self._parts is None:
            core = self.tokenizer.backend_tokenizer  # as that call has set it
            self._parts = PartEncoder.of(core, self.borders) or WholeEncoder(core)
        return self._parts.flat_ids(texts) if self._parts.ids(checked) == ids else None


PLAIN_IDS: Final[dict[str, Any]] = {  # arguments of a tokenizer for the ids of a text, and nothing else
    "add_special_tokens": False,
    "return_attention_mask": False,
    "return_token_type_ids": False,
    "verbose": False,
}


def is_border(token: AddedToken) -> bool:
    """Whether an added token is told from the text around it whatever that is, and takes nothing of it along."""
    return token.special and not (token.normalized or token.single_word or token.lstrip or token.rstrip)
