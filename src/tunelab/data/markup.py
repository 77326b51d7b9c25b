"""Where the Jinja text of a chat template comes from, and how a conversation is written with it."""

import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final, NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from tunelab.data.conversation import Conversation
from tunelab.errors import ConfigError, DataError

Turn = dict[str, Any]

SHIPPED: Final[dict[str, str | None]] = {  # name -> the token that ends a turn where the vocabulary has it
    "chatml": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "alpaca": None,
    "plain": None,
}
DEFAULT: Final = "plain"
_TAG = re.compile(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}")


class Markup(NamedTuple):
    """A template and where it is from."""

    source: str  # Jinja, with `{% generation %}` blocks where it has them
    origin: str  # told to the user


class Written(NamedTuple):
    """A conversation as text."""

    text: str
    spans: list[tuple[int, int]]  # characters of each generation block, first and one past the last


def find_markup(tokenizer: PreTrainedTokenizerBase, name: str | None) -> Markup:
    """The template a user asked for.

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
            return Markup(str(own), "the tokenizer's own chat template")
        return Markup(_shipped(tokenizer, DEFAULT), f"the template '{DEFAULT}': the tokenizer has none of its own")
    if name in SHIPPED:
        return Markup(_shipped(tokenizer, str(name)), f"the template '{name}'")
    path = Path(str(name)).expanduser()
    if path.suffix != ".jinja" or not path.is_file():
        raise ConfigError(
            f"data.template is {name!r}, which is neither a name nor a .jinja file; "
            f"known: auto, {', '.join(SHIPPED)}, or the path of a file that ends in .jinja"
        )
    return Markup(path.read_text(encoding="utf-8"), f"the file {path}")


def _shipped(tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    if tokenizer.eos_token is None:
        raise ConfigError(
            f"the template '{name}' ends answers with the tokenizer's end-of-sequence token, and it has none; "
            "a model that never sees an end never stops: set tokenizer.eos_token, or give a .jinja file"
        )
    source = resources.files("tunelab.data").joinpath("templates", f"{name}.jinja").read_text(encoding="utf-8")
    marker = SHIPPED[name]
    if marker is not None and marker in tokenizer.get_vocab():
        return f"{{%- set end_of_turn = {json.dumps(marker)} %}}\n" + source
    return source


def has_generation_blocks(source: str) -> bool:
    """Whether a template says itself what the assistant writes."""
    return _TAG.search(source) is not None


def without_generation_blocks(source: str) -> str:
    """The same template for readers that do not know `{% generation %}`: an empty comment stands for each tag."""
    return _TAG.sub(r"{#\1 \2#}", source)


def as_turns(conversation: Conversation) -> list[Turn]:
    """Messages in the shape templates read."""
    turns: list[Turn] = []
    for message in conversation.messages:
        turn: Turn = {**message.more, "role": message.role, "content": message.content}
        if message.tool_calls:
            turn["tool_calls"] = message.tool_calls
        turns.append(turn)
    return turns


def write(
    tokenizer: PreTrainedTokenizerBase,
    source: str,
    turns: Sequence[Turn],
    tools: list[dict[str, Any]] | None,
    *,
    reply: bool = False,
    blocks: bool = False,
) -> Written:
    """Write turns as one text.

    Args:
        tokenizer: Its special tokens are the template's variables.
        source: The Jinja text.
        turns: What was said, oldest first.
        tools: Function schemas, or None.
        reply: Whether the start of an assistant turn is added for a model to go on from.
        blocks: Whether the character spans of generation blocks are wanted.

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
    return Written(texts[0], list(spans[0]) if spans else [])
