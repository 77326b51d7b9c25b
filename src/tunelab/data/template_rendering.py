"""Jinja chat templates: loaded, rendered as text, and probed for end tokens and for parts that they leave out."""

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import resources
from typing import Any, Final, NamedTuple, Protocol

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from tunelab.config.resource_paths import expand_home
from tunelab.data.conversation import Conversation, Message
from tunelab.errors import ConfigError, DataError

TemplateMessage = dict[str, Any]

SHIPPED_TEMPLATES: Final[dict[str, str | None]] = {  # name -> the token that ends a turn where the vocabulary has it
    "chatml": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "alpaca": None,
    "plain": None,
}
DEFAULT_TEMPLATE: Final = "plain"
_GENERATION_TAG = re.compile(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}")


class TemplateSource(NamedTuple):
    """A template and where it is from."""

    source: str  # Jinja, with `{% generation %}` blocks where it has them
    origin: str  # where it is from, for messages


class RenderedText(NamedTuple):
    """A conversation as text."""

    text: str
    generation_spans: list[tuple[int, int]]  # characters of each generation block, first and one past the last


def load_template(tokenizer: PreTrainedTokenizerBase, name: str | None) -> TemplateSource:
    """The template that a name stands for.

    Args:
        tokenizer: Its own template is taken where `name` is None or "auto".
        name: A shipped name, the path of a .jinja file, "auto" or None.

    Raises:
        ConfigError: If the name is neither, or a shipped template needs an end token that the tokenizer lacks.
    """
    if name in (None, "auto"):
        own = tokenizer.chat_template
        if isinstance(own, dict):
            own = own.get("default")
        if own:
            return TemplateSource(str(own), "the tokenizer's own chat template")
        return TemplateSource(
            _load_shipped_template(tokenizer, DEFAULT_TEMPLATE),
            f"the template '{DEFAULT_TEMPLATE}': the tokenizer has none of its own",
        )
    if name in SHIPPED_TEMPLATES:
        return TemplateSource(_load_shipped_template(tokenizer, str(name)), f"the template '{name}'")
    path = expand_home(str(name))
    if path.suffix != ".jinja" or not path.is_file():
        raise ConfigError(
            f"data.template is {name!r}, which is neither a name nor a .jinja file; "
            f"known: auto, {', '.join(SHIPPED_TEMPLATES)}, or the path of a file that ends in .jinja"
        )
    return TemplateSource(path.read_text(encoding="utf-8"), f"the file {path}")


def _load_shipped_template(tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    if tokenizer.eos_token is None:
        raise ConfigError(
            f"the template '{name}' ends answers with the tokenizer's end-of-sequence token, and it has none; "
            "a model that never sees an end never stops: set tokenizer.eos_token, or give a .jinja file"
        )
    source = resources.files("tunelab.data").joinpath("templates", f"{name}.jinja").read_text(encoding="utf-8")
    marker = SHIPPED_TEMPLATES[name]
    if marker is not None and marker in tokenizer.get_vocab():
        return f"{{%- set end_of_turn = {json.dumps(marker)} %}}\n" + source
    return source


def has_generation_blocks(source: str) -> bool:
    """Whether a template says itself what the assistant writes."""
    return _GENERATION_TAG.search(source) is not None


def without_generation_blocks(source: str) -> str:
    """The same template for readers that do not know `{% generation %}`: an empty comment stands for each tag."""
    return _GENERATION_TAG.sub(r"{#\1 \2#}", source)


def to_template_messages(conversation: Conversation) -> list[TemplateMessage]:
    """Messages in the shape templates read."""
    turns: list[TemplateMessage] = []
    for message in conversation.messages:
        turn: TemplateMessage = {**message.extra, "role": message.role, "content": message.content}
        if message.tool_calls:
            turn["tool_calls"] = message.tool_calls
        turns.append(turn)
    return turns


def render_conversation(
    tokenizer: PreTrainedTokenizerBase,
    source: str,
    turns: Sequence[TemplateMessage],
    tools: list[dict[str, Any]] | None,
    *,
    reply: bool = False,
    blocks: bool = False,
) -> RenderedText:
    """Write turns as one text.

    Args:
        tokenizer: Its special tokens are the template's variables.
        source: The Jinja text.
        turns: What was said, oldest first.
        tools: Function schemas, or None.
        reply: Whether the start of an assistant turn is added for a model to go on from.
        blocks: Whether to return the character spans of generation blocks.

    Raises:
        DataError: If the template does not accept the turns.
    """
    variables: dict[str, Any] = {"tools": tools, **tokenizer.special_tokens_map}
    rendered: Any  # annotated as text in transformers, and is a pair
    try:
        rendered = render_jinja_template(
            conversations=[list(turns)],
            chat_template=source,
            return_assistant_tokens_mask=blocks,
            add_generation_prompt=reply,
            **variables,
        )
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError, RecursionError) as fault:
        raise DataError(
            f"the chat template does not accept this conversation ({type(fault).__name__}: {fault}); "
            "drop the record, or try data.template=chatml"
        ) from None
    texts, spans = rendered
    return RenderedText(texts[0], list(spans[0]) if spans else [])


PROBE_WORD: Final = "Zebrafish"  # a word that no template writes by itself
PROBE_CALL: Final[dict[str, Any]] = {"type": "function", "function": {"name": PROBE_WORD, "arguments": {"n": 1}}}
PROBE_TOOL: Final[dict[str, Any]] = {
    "type": "function",
    "function": {
        "name": PROBE_WORD,
        "description": "Look up",
        "parameters": {"type": "object", "properties": {"n": {"type": "integer", "description": "Count"}}},
    },
}
PROBE_QUESTION, PROBE_ANSWER = Message("user", "Say alpha"), Message("assistant", "Alpha it is")
PROBE_CONVERSATIONS: Final[dict[str, Conversation]] = {
    "system turns": Conversation((Message("system", PROBE_WORD), PROBE_QUESTION, PROBE_ANSWER)),
    "tools": Conversation((PROBE_QUESTION, PROBE_ANSWER), [PROBE_TOOL]),
    "tool calls": Conversation((PROBE_QUESTION, Message("assistant", "", tool_calls=[PROBE_CALL]))),
    "tool turns": Conversation(
        (
            PROBE_QUESTION,
            Message("assistant", "", tool_calls=[{"type": "function", "function": {"name": "look", "arguments": {}}}]),
            Message("tool", PROBE_WORD),
            PROBE_ANSWER,
        )
    ),
}


class TemplateRenderer(Protocol):
    """`render_conversation` with tokenizer and template filled in."""

    def __call__(
        self,
        turns: list[TemplateMessage],
        tools: list[dict[str, Any]] | None,
        *,
        reply: bool = False,
        blocks: bool = False,
    ) -> RenderedText:
        """Write turns as one text."""


class TemplateSupport:
    """Whether a template renders system turns, tools and calls; each is probed once, when a record first has it."""

    def __init__(self, write: TemplateRenderer) -> None:
        """Nothing is probed yet."""
        self._write = write
        self._rendered_parts: dict[str, bool] = {}

    def check(self, conversation: Conversation) -> None:
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
            if needed and not self._renders(part):
                raise DataError(
                    f"the chat template leaves out {part}, so the model would learn answers to what it never saw; "
                    "try data.template=chatml, or drop such records"
                )

    def _renders(self, part: str) -> bool:
        if part not in self._rendered_parts:
            witness = PROBE_CONVERSATIONS[part]
            try:
                self._rendered_parts[part] = (
                    PROBE_WORD in self._write(to_template_messages(witness), witness.tools).text
                )
            except DataError:
                self._rendered_parts[part] = True  # not silent: the record itself meets the template's own refusal
        return self._rendered_parts[part]


def find_end_tokens(
    write: TemplateRenderer,
    encode: Callable[[str], list[int]],
    tokenizer: PreTrainedTokenizerBase,
    exchange: Conversation,
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
    texts = [write(to_template_messages(exchange), None).text]
    with suppress(DataError):  # a template may be for single exchanges
        texts.append(write(to_template_messages(more), None).text)
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
