"""Jinja chat templates: loaded, rendered as text, and probed for the tokens that end answers."""

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date
from importlib import resources
from itertools import takewhile
from typing import Any, Final, NamedTuple, Protocol

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from tunelab.config.resource_paths import expand_home
from tunelab.config.stored_files import SHAPE_FAULTS, read_stored_text
from tunelab.data.conversation import Conversation, Message
from tunelab.data.template_limits import TemplateTooCostly, bound_templates, limited_rendering
from tunelab.errors import ConfigError, DataError
from tunelab.language.translation import translate

bound_templates()

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
            return TemplateSource(str(own), translate("the tokenizer's own chat template"))
        return TemplateSource(
            _load_shipped_template(tokenizer, DEFAULT_TEMPLATE),
            translate("the template '{name}': the tokenizer has none of its own", name=DEFAULT_TEMPLATE),
        )
    if name in SHIPPED_TEMPLATES:
        return TemplateSource(
            _load_shipped_template(tokenizer, str(name)), translate("the template '{name}'", name=name)
        )
    path = expand_home(str(name))
    if path.suffix != ".jinja" or not path.is_file():
        raise ConfigError(
            translate(
                "data.template is {name!r}, which is neither a name nor a .jinja file; known: auto, "
                "{names}, or the path of a file that ends in .jinja",
                name=name,
                names=", ".join(SHIPPED_TEMPLATES),
            )
        )
    return TemplateSource(
        read_stored_text(path, translate("give a .jinja file in UTF-8")), translate("the file {path}", path=path)
    )


def _load_shipped_template(tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    if tokenizer.eos_token is None:
        raise ConfigError(
            translate(
                "the template '{name}' ends answers with the tokenizer's end-of-sequence token, and "
                "it has none; a model that never sees an end never stops: set tokenizer.eos_token, "
                "or give a .jinja file",
                name=name,
            )
        )
    source = resources.files("tunelab.data").joinpath("templates", f"{name}.jinja").read_text(encoding="utf-8")
    marker = SHIPPED_TEMPLATES[name]
    if marker is not None and marker in tokenizer.get_vocab():
        return f"{{%- set end_of_turn = {json.dumps(marker)} %}}\n" + source
    return source


DATE_DIRECTIVES: Final = ("%-d", "%-m", "%-I", "%-H", *(f"%{c}" for c in "aAbBcdDeFGhHIjmMpRSTuUVwWxXyYzZ"), "%%")
_FIXED_DATE: Final = re.compile(r"\A\{#- the date is (\d{4}-\d\d-\d\d) .*?endmacro %\}\n", re.DOTALL)


def writes_date(source: str) -> bool:
    """Whether a template reads the clock."""
    return "strftime_now" in without_fixed_date(source)


def fixed_date(source: str) -> str | None:
    """The day that `fix_date` has put into a template, as 2026-11-28; None where it has put none."""
    match = _FIXED_DATE.match(source)
    return match.group(1) if match else None


def fix_date(source: str, day: date) -> str:
    """The same template with the day in place of the clock: a macro of the name that reads the clock otherwise."""
    steps = "".join(f" | replace({d!r}, {day.strftime(d)!r})" for d in DATE_DIRECTIVES)
    return (
        f"{{#- the date is {day.isoformat()} wherever the template asks for it -#}}\n"
        f"{{%- macro strftime_now(format) -%}}{{{{ format{steps} }}}}{{%- endmacro %}}\n{without_fixed_date(source)}"
    )


def without_fixed_date(source: str) -> str:
    """The template as it was before `fix_date`."""
    return _FIXED_DATE.sub("", source)


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
        if message.reasoning:
            turn["reasoning_content"] = message.reasoning
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
    **more: Any,
) -> RenderedText:
    """Write turns as one text.

    Args:
        tokenizer: Its special tokens are the template's variables.
        source: The Jinja text.
        turns: What was said, oldest first.
        tools: Function schemas, or None.
        reply: Whether the start of an assistant turn is added for a model to go on from.
        blocks: Whether to return the character spans of generation blocks.
        more: Further variables of the template.

    Raises:
        DataError: If the template does not accept the turns.
    """
    variables: dict[str, Any] = {"tools": tools, **tokenizer.special_tokens_map, **more}
    rendered: Any  # annotated as text in transformers, and is a pair
    try:
        with limited_rendering():
            rendered = render_jinja_template(
                conversations=[list(turns)],
                chat_template=source,
                return_assistant_tokens_mask=blocks,
                add_generation_prompt=reply,
                **variables,
            )
    except TemplateTooCostly as fault:
        raise ConfigError(
            translate(
                "the chat template is stopped: {fault}, which no conversation needs; try data.template=chatml",
                fault=fault,
            )
        ) from None
    except (TemplateError, MemoryError, *SHAPE_FAULTS) as fault:
        raise DataError(
            translate(
                "the chat template does not accept this conversation ({kind}: {fault}); drop the "
                "record, or try data.template=chatml",
                kind=type(fault).__name__,
                fault=fault,
            )
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
PROBE_EXCHANGE: Final = Conversation((PROBE_QUESTION, PROBE_ANSWER))
PROBE_CALLING: Final = Conversation((PROBE_QUESTION, Message("assistant", "", tool_calls=[PROBE_CALL])))


class TemplateRenderer(Protocol):
    """`render_conversation` with tokenizer and template filled in."""

    def __call__(
        self, turns: Sequence[TemplateMessage], tools: list[dict[str, Any]] | None, *, reply: bool = False
    ) -> RenderedText:
        """Write turns as one text."""


class TurnEnds(NamedTuple):
    """What ends answers and calls."""

    tokens: list[int]  # ids that end a generation, sorted
    closing: str = ""  # of an answer, where the template leaves it to the turn after it
    closing_call: str = ""  # of a call


def find_turn_ends(
    write: TemplateRenderer, encode: Callable[[str], list[int]], tokenizer: PreTrainedTokenizerBase
) -> TurnEnds:
    """The tokens that end answers and calls, and the end-of-sequence token.

    Some templates (GLM) write nothing after an answer: the token that opens the next turn is where a model stops.

    Args:
        write: The template.
        encode: Text to ids.
        tokenizer: Knows which ids are control tokens.

    Raises:
        DataError: If nothing, or only ordinary text, follows the answer.
    """
    ends = {tokenizer.eos_token_id} - {None}
    control = set(tokenizer.added_tokens_decoder) | ends
    question, answer = PROBE_EXCHANGE.messages

    def text_after(conversation: Conversation, said: str) -> str:
        text = write(to_template_messages(conversation), None).text
        if said not in text:
            raise DataError(translate("an answer does not appear in the text it writes"))
        return text[text.index(said) + len(said) :]

    def first_token(text: str) -> int | None:
        return next(iter(encode(text.lstrip())[:1]), None)

    def opener(text: str) -> str:
        """The blanks and the control token that a text begins with; nothing where it begins otherwise."""
        token = first_token(text)
        if token is None or token not in control:
            return ""
        spelled = str(tokenizer.convert_ids_to_tokens(token))
        return text[: text.index(spelled) + len(spelled)]

    closing = closing_call = ""
    after = text_after(PROBE_EXCHANGE, answer.content)
    if not after.strip():
        with suppress(DataError):  # a template may be for single exchanges
            more = Conversation((question, answer, Message("user", "Say beta"), Message("assistant", "Beta it is")))
            closing = opener(text_after(more, answer.content))
    run = list(takewhile(lambda token: token in control, encode((closing or after).strip())))
    if not run:
        token = first_token(closing or after)
        follows = "nothing" if token is None else tokenizer.decode([token])
        raise DataError(
            translate(
                "an answer is followed by {follows!r} and not by a control token, so no model would "
                "learn to stop; let it write eos_token after each answer, or try data.template=chatml",
                follows=follows,
            )
        )
    ends.add(run[-1])
    with suppress(DataError):  # a template may know no calls
        calling = write(to_template_messages(PROBE_CALLING), None).text
        result = Conversation((*PROBE_CALLING.messages, Message("tool", "Done")))
        more_text = write(to_template_messages(result), None).text
        if closing and more_text.startswith(calling):
            closing_call = opener(more_text[len(calling) :]) or closing
        last = encode((calling + closing_call).rstrip())[-1:]
        if PROBE_WORD in calling and last and last[0] in control:
            ends.add(last[0])
    return TurnEnds(sorted(ends), closing, closing_call)
