"""Rows that cannot be used: the fault of each, what becomes of a file that has some, and how messages quote them."""

from array import array
from collections.abc import Iterable, MutableSequence, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from tunelab.errors import DataError

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


def separate_bad_rows(
    name: str, outcomes: Iterable[RowOutcome], rows: RowSink, *, on_bad: str, unit: str = "line"
) -> tuple[Sequence[int], list[str]]:
    """Separate good rows from bad ones.

    Args:
        name: The file, as messages name it.
        outcomes: Line or row number (from 1) and what was read there, in file order.
        rows: Takes the good rows.
        on_bad: "error" refuses the file; "skip" leaves bad rows out while they are at most 1 % of the file.
        unit: What the numbers count: "line" or "row".

    Returns:
        The numbers of the good rows, and one message per skipped row.

    Raises:
        DataError: If a row is bad, if too many are, or if no row is left.
    """
    numbers: MutableSequence[int] = [] if isinstance(rows, list) else array("q")
    bad: list[str] = []
    spoilt = 0
    for number, outcome in outcomes:
        if isinstance(outcome, RowFault):
            place = f"{name} {unit} {number}" + (f", column {outcome.column}" if outcome.column else "")
            bad.append(f"{place}: {outcome.message}")
            spoilt += outcome.lines_lost
        else:
            rows.append(outcome)
            numbers.append(number)
    if bad and on_bad == "error":
        raise DataError(summarize_messages(bad))
    if spoilt > MAX_SKIPPED_SHARE * (len(rows) + spoilt):
        share = f"{spoilt} of {len(rows) + spoilt} {unit}s"
        raise DataError(
            f"{name}: {share} cannot be read, and data.on_bad=skip stops above {MAX_SKIPPED_SHARE:.0%}: so many point"
            f" to a fault of the whole file\n{summarize_messages(bad)}"
        )
    if not rows:
        raise DataError(f"{name} holds 0 records; there is nothing to learn from it")
    return numbers, bad


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
