"""What a chat template does with a canned conversation: where turns end, and what it leaves out in silence."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from transformers import PreTrainedTokenizerBase

from tunelab.data.conversation import Conversation, Message
from tunelab.data.markup import Turn, Written, as_turns
from tunelab.errors import DataError

WITNESS: Final = "Zebrafish"  # a word that no template writes by itself
CALL: Final[dict[str, Any]] = {"type": "function", "function": {"name": WITNESS, "arguments": {"n": 1}}}
TOOL: Final[dict[str, Any]] = {
    "type": "function",
    "function": {
        "name": WITNESS,
        "description": "Look up",
        "parameters": {"type": "object", "properties": {"n": {"type": "integer", "description": "Count"}}},
    },
}
ASK, ANSWER = Message("user", "Say alpha"), Message("assistant", "Alpha it is")
WITNESSES: Final[dict[str, Conversation]] = {
    "system turns": Conversation((Message("system", WITNESS), ASK, ANSWER)),
    "tools": Conversation((ASK, ANSWER), [TOOL]),
    "tool calls": Conversation((ASK, Message("assistant", "", tool_calls=[CALL]))),
    "tool turns": Conversation(
        (
            ASK,
            Message("assistant", "", tool_calls=[{"type": "function", "function": {"name": "look", "arguments": {}}}]),
            Message("tool", WITNESS),
            ANSWER,
        )
    ),
}


class Writer(Protocol):
    """`markup.write` with tokenizer and template filled in."""

    def __call__(
        self, turns: list[Turn], tools: list[dict[str, Any]] | None, *, reply: bool = False, blocks: bool = False
    ) -> Written:
        """Write turns as one text."""


class Abilities:
    """Which parts of a conversation a template shows; each is tried once, when a record first has it."""

    def __init__(self, write: Writer) -> None:
        """Try nothing yet."""
        self._write = write
        self._shown: dict[str, bool] = {}

    def require(self, conversation: Conversation) -> None:
        """Refuse a conversation with parts that the template would leave out in silence.

        Raises:
            DataError: Naming the first such part.
        """
        said = conversation.messages
        parts = {
            "system turns": any(message.role == "system" for message in said),
            "tools": bool(conversation.tools),
            "tool calls": any(message.tool_calls for message in said),
            "tool turns": any(message.role == "tool" for message in said),
        }
        for part, needed in parts.items():
            if needed and not self._shows(part):
                raise DataError(
                    f"the chat template leaves out {part}, so the model would learn answers to what it never saw; "
                    "try data.template=chatml, or drop such records"
                )

    def _shows(self, part: str) -> bool:
        if part not in self._shown:
            witness = WITNESSES[part]
            try:
                self._shown[part] = WITNESS in self._write(as_turns(witness), witness.tools).text
            except DataError:
                self._shown[part] = True  # not silent: the record itself meets the template's own refusal
        return self._shown[part]


def end_markers(
    write: Writer, encode: Callable[[str], list[int]], tokenizer: PreTrainedTokenizerBase, exchange: Conversation
) -> list[int]:
    """Ids that end an answer, sorted: the first token after the answer's text, and the end-of-sequence token.

    Args:
        write: The template.
        encode: Text to ids.
        tokenizer: Knows which ids are control tokens.
        exchange: One question and its answer.

    Raises:
        DataError: If nothing, or only ordinary text, follows the answer.
    """
    answer = exchange.messages[1].content
    more = Conversation((*exchange.messages, Message("user", "Say beta"), Message("assistant", "Beta it is")))
    texts = [write(as_turns(exchange), None).text]
    with suppress(DataError):  # a template may be for single exchanges
        texts.append(write(as_turns(more), None).text)
    ends = {tokenizer.eos_token_id} - {None}
    for number, text in enumerate(texts):
        if answer not in text:
            raise DataError("an answer does not appear in the text it writes")
        after = encode(text[text.index(answer) + len(answer) :].lstrip())[:1]
        control = set(tokenizer.added_tokens_decoder) | ends
        if after and after[0] in control:
            ends.add(after[0])
        elif number == 0:
            follows = tokenizer.decode(after) if after else "nothing"
            raise DataError(
                f"an answer is followed by {follows!r} and not by a control token, so no model would learn to stop; "
                "let it write eos_token after each answer, or try data.template=chatml"
            )
    return sorted(ends)
