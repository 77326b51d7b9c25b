"""A row as it was read, or the fault that makes it unusable, and how messages quote it."""

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

MAX_LISTED = 5  # faults written out in a message; the rest are counted
MAX_SKIPPED_SHARE = 0.01  # share of a file that may be skipped; above it the file, not a line, is at fault
EXCERPT_CHARS = 30  # characters on either side of a fault

RowDict = dict[str, Any]
RowOutcome: TypeAlias = "tuple[int, RowDict | RowFault]"  # line or row number from 1, and what was read there


class RowSink(Protocol):
    """Takes rows one by one: a list, or the writer of a file."""

    def append(self, row: RowDict, /) -> None:
        """Keep one row."""

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class RowFault:
    """The reason why a row cannot be used.

    Attributes:
        message: What is wrong and what to try, without file and line.
        column: Where in the line, counted from 1; 0 where unknown.
        lines_lost: How many lines of the file it spoils.
    """

    message: str
    column: int = 0
    lines_lost: int = 1


def excerpt(text: str, column: int = 1) -> str:
    """The text around a column (counted from 1), quoted, control characters made visible."""
    start = max(0, column - 1 - EXCERPT_CHARS)
    cut = text[start : column - 1 + EXCERPT_CHARS]
    return (
        ("..." if start else "") + escape_unprintable(cut) + ("..." if column - 1 + EXCERPT_CHARS < len(text) else "")
    )


def escape_unprintable(text: str) -> str:
    """`text` with every character that cannot be printed written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def summarize_messages(messages: list[str], count: int | None = None) -> str:
    """The first messages, one a line, and a count of the rest; `count` is their number if not all are given."""
    more = (len(messages) if count is None else count) - MAX_LISTED
    return "\n".join(messages[:MAX_LISTED]) + (f"\n... and {more} more" if more > 0 else "")
