"""What a record says once its format is forgotten: turns of a conversation.  Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

ROLES: Final = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    Attributes:
        role: One of `ROLES`.
        content: Its text, exactly as the record holds it.
        train: Whether an assistant turn is learned; without meaning for other roles.
        tool_calls: Calls an assistant turn makes, `[{"type": "function", "function": {"name", "arguments"}}]`.
        more: What else some templates read of a turn: `name`, `tool_call_id`.
    """

    role: str
    content: str
    train: bool = True
    tool_calls: list[dict[str, Any]] | None = None
    more: Mapping[str, str] = field(default_factory=dict)


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

    def last_answer(self) -> int | None:
        """Index of the last assistant turn, or None."""
        turns = range(len(self.messages) - 1, -1, -1)
        return next((turn for turn in turns if self.messages[turn].role == "assistant"), None)

    def learned(self, train_on: str) -> list[int]:
        """Indices of the assistant turns that are learned: all, or the last, without those marked `train: false`."""
        last = self.last_answer()
        asked = range(len(self.messages)) if train_on != "last_answer" else [] if last is None else [last]
        return [turn for turn in asked if self.messages[turn].role == "assistant" and self.messages[turn].train]
