"""The chat template of a tokenizer: conversations to token ids and labels, with every promise about the ids checked.

Control tokens that a user's text spells out are encoded as ordinary text; prompts are token prefixes; answers end with
an end-of-turn token.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import takewhile
from typing import Any, Final, get_args

from transformers import PreTrainedTokenizerBase

from tunelab.config.schema import TrainOn
from tunelab.data.conversation import Conversation, Message
from tunelab.data.examples import IGNORE
from tunelab.data.template_rendering import (
    RenderedText,
    TemplateMessage,
    TemplateSupport,
    find_end_tokens,
    has_generation_blocks,
    load_template,
    render_conversation,
    to_template_messages,
    without_generation_blocks,
)
from tunelab.errors import ConfigError, DataError

TRAIN_ON: Final[tuple[str, ...]] = get_args(TrainOn)
PROBE_EXCHANGE: Final = Conversation((Message("user", "Say alpha"), Message("assistant", "Alpha it is")))


class ChatTemplate:
    """One tokenizer with one template.

    The ids of a record are the tokenizer's encoding of the whole written text, so training and inference see the
    same tokens.  Checked at construction on a canned exchange and again for every record: one begin token at most,
    every learned answer ends with a learned end-of-turn token, and a prompt is a token prefix of its continuation.

    A template's own `{% generation %}` blocks say what is learned; without them (or where they do not start where
    the prompt ends) an answer is what the text gains over the prompt.  Control tokens written out inside a message
    ("</s>" in a text about tokenizers) are encoded as ordinary text.

    The shipped chatml and llama3 use their markers as tokens where the vocabulary has them.  Else markers are
    ordinary text and the end-of-sequence token ends a turn, so that an end is always one token that can be learned.

    Attributes:
        source: The template, Jinja.
        origin: Where it is from, for the user.
        stop_ids: Ids that end a generation: the end-of-turn tokens and the end-of-sequence token, sorted.
        bos: Id of the begin token that leads every sequence, or None.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str | None = None) -> None:
        """Take a template and probe it.

        Args:
            tokenizer: Is only read.
            name: "auto" or None for the tokenizer's own (else "plain"), a shipped name, or a .jinja file.

        Raises:
            ConfigError: If there is no such template, or no answer could be learned with it; says why.
        """
        self.tokenizer = tokenizer
        self.source, self.origin = load_template(tokenizer, name)
        self._plain = LiteralTextEncoder(tokenizer)
        try:
            self.bos = self._leading_bos()
            self.stop_ids = find_end_tokens(self._write, self._ids, tokenizer, PROBE_EXCHANGE)
            self._plain.protect(self.stop_ids + self._frame_ids())
            self._blocks = has_generation_blocks(self.source) and self._blocks_start_where_prompts_end()
            self._abilities = TemplateSupport(self._write)
            self.encode(PROBE_EXCHANGE)
            self.prompt_ids(PROBE_EXCHANGE)
        except DataError as fault:
            raise ConfigError(f"{self.origin} cannot be used for training: {fault}") from None

    @property
    def export_template(self) -> str:
        """The template for other readers: `{% generation %}` tags, which several do not know, taken out."""
        return without_generation_blocks(self.source)

    def describe(self) -> list[str]:
        """Template, begin and end tokens, and how trained tokens are marked: a line each."""
        names = [str(self.tokenizer.convert_ids_to_tokens(token)) for token in self.stop_ids]
        begin = "none" if self.bos is None else repr(self.tokenizer.convert_ids_to_tokens(self.bos))
        mask = "its generation blocks" if self._blocks else "the difference to the prompt, verified per record"
        return [f"template: {self.origin}", f"begin: {begin}; ends: {', '.join(names)}", f"learned: by {mask}"]

    def encode(self, conversation: Conversation | str, train_on: str = "answers") -> tuple[list[int], list[int]]:
        """Ids and labels of one record.

        Args:
            conversation: Turns, or a plain text, of which everything is learned.
            train_on: "answers" (every assistant turn not marked `train: false`), "last_answer", or "all" tokens
                but those of assistant turns marked `train: false`.

        Returns:
            T ids, and T labels equal to the ids or `IGNORE`; position t labels token t.

        Raises:
            DataError: If a promise of the class cannot be kept for this record.
        """
        if train_on not in TRAIN_ON:
            raise ValueError(f"train_on is {train_on!r}; known: {', '.join(TRAIN_ON)}")
        if isinstance(conversation, str):
            ids = self._text_ids(conversation)
            return ids, list(ids)
        answers = [turn for turn, message in enumerate(conversation.messages) if message.role == "assistant"]
        learned = conversation.trained_turns(train_on)
        if not learned:
            raise DataError("no assistant turn is learned; a record that teaches nothing is best dropped")
        self._abilities.check(conversation)
        turns, tools = self._escaped(conversation)
        ids, spans = self._answer_spans(turns, tools, answers if train_on == "all" else learned)
        if train_on == "all":
            labels = list(ids)
            for turn in set(answers) - set(learned):
                start, stop = spans[turn]
                labels[start:stop] = [IGNORE] * (stop - start)
            return ids, labels
        labels = [IGNORE] * len(ids)
        for turn in learned:
            start, stop = spans[turn]
            labels[start:stop] = ids[start:stop]
        return ids, labels

    def prompt_ids(self, conversation: Conversation) -> list[int]:
        """Ids a model is given to produce the last assistant turn: all before it, and the start of an answer.

        Raises:
            DataError: If they are no prefix of the ids that `encode` gives, so training and use would differ.
        """
        last = conversation.last_assistant_turn()
        if last is None:
            return self.reply_ids(conversation)
        before = Conversation(conversation.messages[:last], conversation.tools)
        prompt = self.reply_ids(before)
        turns, tools = self._escaped(conversation)
        whole = self._ids(self._write(turns, tools).text)
        check_token_prefix(self.tokenizer, prompt, whole, "the prompt of the last answer")
        return prompt

    def reply_ids(self, conversation: Conversation) -> list[int]:
        """Ids a model is given to say what comes next in a conversation, whoever spoke last."""
        self._abilities.check(conversation)
        turns, tools = self._escaped(conversation)
        return self._ids(self._write(turns, tools, reply=True).text)

    def reference_answer(self, conversation: Conversation) -> str:
        """The last assistant turn as text, blank ends removed; calls as the template writes them."""
        last = conversation.last_assistant_turn()
        if last is None:
            raise DataError("there is no assistant turn to compare with")
        if not conversation.messages[last].tool_calls:
            return conversation.messages[last].content.strip()
        upto = Conversation(conversation.messages[: last + 1], conversation.tools)
        ids, spans = self._answer_spans(*self._escaped(upto), [last])
        start, stop = spans[last]
        return str(self.tokenizer.decode(ids[start : stop - 1], skip_special_tokens=True)).strip()

    def _answer_spans(
        self, turns: list[TemplateMessage], tools: Any, answer_turns: Sequence[int]
    ) -> tuple[list[int], dict[int, tuple[int, int]]]:
        """All ids, and for each answer turn where its trained tokens start and stop (one past the last)."""
        written = self._write(turns, tools, blocks=self._blocks)
        ids = self._ids(written.text)
        if self.bos is not None and ids[:2] == [self.bos, self.bos]:
            raise DataError("the text starts with two begin tokens; take the one out of the first turn")
        answers = [turn for turn, said in enumerate(turns) if said["role"] == "assistant"]
        block_spans = (
            dict(zip(answers, written.generation_spans, strict=True))
            if len(written.generation_spans) == len(answers)
            else {}
        )
        spans = {}
        for turn in answer_turns:
            start, end = block_spans.get(turn) or self._added_span(turns, tools, turn, written.text)
            end = max(start, len(written.text[:end].rstrip()))
            before = self._prefix_length(written.text[:start], ids, f"the prompt of turn {turn + 1}")
            after = len(ids)
            if end < len(written.text):
                after = self._prefix_length(written.text[:end], ids, f"the text up to the end of turn {turn + 1}")
            stop = find_answer_end(self.tokenizer, ids, (before, after), self.stop_ids)
            if stop is None:
                raise DataError(
                    f"turn {turn + 1} does not close with an end-of-turn token, so a model would not learn to stop; "
                    "try data.train_on=last_answer, or data.template=chatml"
                )
            spans[turn] = before, stop
        return ids, spans

    def _added_span(self, turns: list[TemplateMessage], tools: Any, turn: int, text: str) -> tuple[int, int]:
        """Characters that an assistant turn adds to its prompt."""
        prompt = self._write(turns[:turn], tools, reply=True).text
        upto = self._write(turns[: turn + 1], tools).text
        if not (upto.startswith(prompt) and text.startswith(upto)):
            raise DataError(
                f"the template writes the text before turn {turn + 1} differently once the turn is there, so what is "
                "learned is not what a model is asked; try data.train_on=last_answer, or data.template=chatml"
            )
        return len(prompt), len(upto)

    def _prefix_length(self, text: str, ids: list[int], what: str) -> int:
        prefix = self._ids(text)
        check_token_prefix(self.tokenizer, prefix, ids, what)
        return len(prefix)

    def _text_ids(self, text: str) -> list[int]:
        """A plain text between the begin and the end of a sequence, as in pre-training."""
        if not text.strip():
            raise DataError("the text is empty; drop it")
        if self.tokenizer.eos_token_id is None:
            raise DataError("the tokenizer has no end-of-sequence token, so texts would run into each other")
        begin = [] if self.bos is None else [self.bos]
        return [*begin, *self._ids(self._plain.mark(text)), self.tokenizer.eos_token_id]

    def _escaped(self, conversation: Conversation) -> tuple[list[TemplateMessage], list[dict[str, Any]] | None]:
        try:
            return self._plain.mark(to_template_messages(conversation)), self._plain.mark(conversation.tools)
        except RecursionError:
            raise DataError("a tool or a call is nested too deeply to be written; flatten it") from None

    def _ids(self, text: str) -> list[int]:
        return self._plain.ids(text)

    def _write(
        self,
        turns: list[TemplateMessage],
        tools: list[dict[str, Any]] | None,
        *,
        reply: bool = False,
        blocks: bool = False,
    ) -> RenderedText:
        return render_conversation(self.tokenizer, self.source, turns, tools, reply=reply, blocks=blocks)

    def _leading_bos(self) -> int | None:
        """The begin token that leads the template's text.

        Where the tokenizer puts one before any text and the template does not write it, it is added to the
        template, so that training, inference and the exported model agree.
        """
        bos = self.tokenizer.bos_token_id
        if bos is None:
            return None
        if self._ids(self._write(to_template_messages(PROBE_EXCHANGE), None).text)[0] == bos:
            return int(bos)
        if self.tokenizer("a")["input_ids"][0] != bos:
            return None
        self.source = "{{ bos_token }}" + self.source
        return int(bos)

    def _frame_ids(self) -> list[int]:
        """Control tokens around the turns."""
        ids = self._ids(self._write(to_template_messages(PROBE_EXCHANGE), None, reply=True).text)
        return [token for token in ids if token in self.tokenizer.added_tokens_decoder]

    def _blocks_start_where_prompts_end(self) -> bool:
        turns = to_template_messages(PROBE_EXCHANGE)
        text, spans = self._write(turns, None, blocks=True)
        return len(spans) == 1 and text[: spans[0][0]] == self._write(turns[:1], None, reply=True).text


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
        f"{what} is no token prefix of the whole: at token {at} it reads {apart!r}, in the whole {joint!r}; "
        "a model asked with it would see other tokens than it learned; end prompts in a newline or a marker"
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
    inside = [t for t in range(start, end) if ids[t] in stops]
    if inside:
        return inside[-1] + 1 if all(map(is_blank, ids[inside[-1] + 1 : end])) else None
    after = end + sum(1 for _ in takewhile(is_blank, ids[end:]))
    return after + 1 if after < len(ids) and ids[after] in stops else None


MARK_OPEN, MARK_CLOSE = "\ue000", "\ue001"  # private-use characters: no text means anything by them
MATCH_NOTHING: Final = re.compile(r"(?!)")


class LiteralTextEncoder:
    """A tokenizer that encodes control tokens in a user's text as the plain characters they are made of.

    "</s>" in a text about tokenizers would end the turn half-way, and a second begin token would confuse the model.
    Such a spot is marked before the template is applied, and encoded as the characters it is made of.  The way is
    that of `apply_chat_template(sanitize_control_tokens=True)` in transformers, which gives no assistant mask.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """No token is protected yet."""
        self.tokenizer = tokenizer
        self._control = self._marked = MATCH_NOTHING
        self._newline: list[int] = []

    def protect(self, tokens: Iterable[int]) -> None:
        """Treat these ids (and begin and end of sequence) as control tokens from now on."""
        special = {self.tokenizer.bos_token, self.tokenizer.eos_token} - {None}
        special |= {self.tokenizer.added_tokens_decoder[t].content for t in tokens if self._is_added(t)}
        longest_first = sorted(map(str, special), key=len, reverse=True)
        if longest_first:
            spelled = "|".join(map(re.escape, longest_first))
            self._control = re.compile(spelled)
            self._marked = re.compile(f"{MARK_OPEN}({spelled}){MARK_CLOSE}")
        self._newline = self._encode("\n")

    def mark(self, value: Any) -> Any:
        """The same value with control tokens in its texts marked, keys of mappings included."""
        if isinstance(value, str):
            return self._control.sub(f"{MARK_OPEN}\\g<0>{MARK_CLOSE}", value)
        if isinstance(value, dict):
            return {self.mark(key): self.mark(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.mark(inner) for inner in value]
        return value

    def ids(self, text: str) -> list[int]:
        """Ids of a written text, without begin or end tokens of the tokenizer's own.

        Raises:
            DataError: If the text is not valid Unicode.
        """
        pieces = self._marked.split(text)
        ids = self._encode(pieces[0])
        for index, piece in enumerate(pieces[1:], start=1):
            if piece:
                ids += self._encode_inside(piece, literal=index % 2 == 1)
        return ids

    def _encode_inside(self, piece: str, *, literal: bool) -> list[int]:
        """Encode what follows other text: after a newline, or some tokenizers put a space before it."""
        ids = self._encode("\n" + piece, literal=literal)
        if ids[: len(self._newline)] == self._newline:
            return ids[len(self._newline) :]
        return self._encode(piece, literal=literal)

    def _encode(self, text: str, *, literal: bool = False) -> list[int]:
        try:
            encoding = self.tokenizer(
                text,
                add_special_tokens=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
                split_special_tokens=literal,
            )
        except (UnicodeError, TypeError) as fault:
            raise DataError(f"a text is not valid Unicode ({fault}); repair its encoding or drop the record") from None
        return list(encoding["input_ids"])

    def _is_added(self, token: int) -> bool:
        return token in self.tokenizer.added_tokens_decoder
