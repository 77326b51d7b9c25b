"""A record as a conversation: messages with roles, tools and tool calls in the one shape that chat templates read.
Pure.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tunelab.errors import DataError
from tunelab.language.translation import translate

ROLES: Final = ("system", "user", "assistant", "tool")
END_OF_REASONING: Final = re.compile(r"</(?:think|thinking|thought|reason|reasoning|seed:think)>|\[/THINK\]|◁/think▷")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    Attributes:
        role: One of `ROLES`.
        content: Its text, exactly as the record holds it.
        train: Whether an assistant turn is learned; without meaning for other roles.
        tool_calls: Calls an assistant turn makes, `[{"type": "function", "function": {"name", "arguments"}}]`.
        extra: What else some templates read of a turn: `name`, `tool_call_id`.
        reasoning: What the assistant thinks before it answers, where the record keeps it apart from the answer.
    """

    role: str
    content: str
    train: bool = True
    tool_calls: list[dict[str, Any]] | None = None
    extra: Mapping[str, str] = field(default_factory=dict)
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One record as turns, oldest first.

    Attributes:
        messages: The turns.
        tools: JSON schemas of the functions an assistant may call, or None.
        meta: What else the record says of itself (id, source, family, ...); never seen by the model.
    """

    messages: tuple[Message, ...]
    tools: list[dict[str, Any]] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reasons(self) -> bool:
        """Whether an answer has reasoning, apart from the answer or before the mark that ends it."""
        answers = (message for message in self.messages if message.role == "assistant")
        return any(answer.reasoning or END_OF_REASONING.search(answer.content) for answer in answers)

    def last_assistant_turn(self) -> int | None:
        """Index of the last assistant turn, or None."""
        turns = range(len(self.messages) - 1, -1, -1)
        return next((turn for turn in turns if self.messages[turn].role == "assistant"), None)

    def trained_turns(self, train_on: str) -> list[int]:
        """Indices of the assistant turns that are learned: all, or the last, without those marked `train: false`."""
        last = self.last_assistant_turn()
        candidates = range(len(self.messages)) if train_on != "last_answer" else [] if last is None else [last]
        return [turn for turn in candidates if self.messages[turn].role == "assistant" and self.messages[turn].train]


def after_reasoning(text: str) -> str:
    r"""An answer without the reasoning before it; a text that is nothing else, as it is.

    Example:
        >>> after_reasoning("<think>2 and 2</think>\n\n4")
        '4'
    """
    ends = [match.end() for match in END_OF_REASONING.finditer(text)]
    return (text[ends[-1] :].strip() if ends else "") or text


JSON_ERRORS = (ValueError, RecursionError)  # not JSON; a number of thousands of digits; nested too deeply


def read_tools(value: Any) -> list[dict[str, Any]] | None:
    """The functions a record offers, as `[{"type": "function", "function": {...}}]`; None if it offers none.

    Args:
        value: A list of schemas, the same as JSON text, or nothing.

    Raises:
        DataError: If it is neither.
    """
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            value = json.loads(value)
        except JSON_ERRORS as fault:
            raise DataError(
                translate("'tools' is text but not JSON ({fault}); give a list of function schemas", fault=fault)
            ) from None
    if not value:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
        raise DataError(
            translate(
                "'tools' is {kind}; give a list of function schemas, or the same as JSON text",
                kind=type(value).__name__,
            )
        )
    tools = [_wrap_function(tool) for tool in value]
    if not all(_has_function_name(tool) for tool in tools):
        raise DataError(
            translate("a function in 'tools' has no name, so it cannot be called; give {name, description, parameters}")
        )
    return tools


def read_calls(value: Any) -> list[dict[str, Any]] | None:
    """The calls of an assistant turn, with arguments as a dict where they are JSON text; None if there are none.

    Raises:
        DataError: If it is not a list of calls with a name each.
    """
    if not value:
        return None
    if not isinstance(value, list) or not all(isinstance(call, Mapping) for call in value):
        raise DataError(
            translate("'tool_calls' is {kind}; give a list of {{name, arguments}}", kind=type(value).__name__)
        )
    calls = [_wrap_function(call) for call in value]
    for call in calls:
        if not _has_function_name(call):
            raise DataError(translate("a tool call has no name, so nothing can be called; give {name, arguments}"))
        function = call["function"]
        call["function"] = {
            "name": function["name"],
            **function,
            "arguments": _parse_arguments(function.get("arguments")),
        }
    return calls


def calls_from_text(text: str) -> list[dict[str, Any]] | None:
    """Read a turn that is nothing but a call, `{"name", "arguments"}` or a list of them; None where it is not."""
    try:
        value = json.loads(text)
    except JSON_ERRORS:
        return None
    calls = value if isinstance(value, list) else [value]
    named = calls and all(isinstance(call, Mapping) and isinstance(call.get("name"), str) for call in calls)
    return read_calls(calls) if named else None


def _wrap_function(function: Mapping[str, Any]) -> dict[str, Any]:
    if "function" in function:
        return dict(function)
    return {"type": "function", "function": dict(function)}


def _has_function_name(wrapped: Mapping[str, Any]) -> bool:
    function = wrapped["function"]
    return isinstance(function, Mapping) and isinstance(function.get("name"), str) and bool(function["name"].strip())


def _parse_arguments(value: Any) -> Any:
    """A dict where the arguments are JSON text: templates write them as JSON, and would quote a text twice."""
    if not isinstance(value, str):
        return {} if value is None else value
    try:
        return json.loads(value)
    except JSON_ERRORS:
        return value
