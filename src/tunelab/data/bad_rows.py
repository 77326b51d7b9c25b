"""Rows that cannot be used: the fault of each, what becomes of a file that has some, and how messages quote them."""

import re
from array import array
from collections.abc import Callable, Iterable, MutableSequence, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol, TypeAlias

from tunelab.errors import DataError
from tunelab.language.translation import message, translate

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


CONTROL_CHARS = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")  # what no text needs; tab and line ends pass
CLEAN_ADVICE = message(
    "data.on_bad=clean (--on-bad clean of tunelab predict and evaluate) takes such "
    "characters out, data.on_bad=skip leaves the row out"
)


class RowRepair:
    """A change to rows of a file, with the count of those that it changed.

    Args:
        change: Gives a row changed, or the very row where it needs none.
        what: What was done, for the note.
    """

    def __init__(self, change: Callable[[RowDict], RowDict], what: str) -> None:
        self.change, self.what = change, what
        self.count, self.first = 0, 0

    def apply(self, row: RowDict, number: int) -> RowDict:
        """The row after the change."""
        changed = self.change(row)
        if changed is not row:
            self.count, self.first = self.count + 1, self.first or number
        return changed

    def note(self, name: str, place: Callable[[int], str]) -> list[str]:
        """A line that says how many rows were changed; none where none was."""
        return (
            [
                translate(
                    "{name}: {what} in {count:,} [row|rows], first in {first}",
                    name=name,
                    what=self.what,
                    count=self.count,
                    first=place(self.first),
                )
            ]
            if self.count
            else []
        )


def clean_row(row: RowDict) -> RowDict:
    r"""A row whose texts, at any depth, hold no control characters and no unpaired surrogates.

    Example:
        >>> clean_row({"a": ["x\x00y", 7]})
        {'a': ['xy', 7]}
    """
    cleaned = _clean(row)
    return row if cleaned == row else cleaned


def _clean(value: Any) -> Any:
    match value:
        case str():
            return CONTROL_CHARS.sub("", value) if not value.isprintable() else value
        case dict():
            return {_clean(key): _clean(inner) for key, inner in value.items()}
        case list():
            return [_clean(inner) for inner in value]
    return value


def drop_nested_nulls(row: RowDict) -> RowDict:
    """A row without the null keys inside its columns; columns that are null themselves stay.

    Arrow gives every record of a list or column the keys of all, so a key that a record never had reads as null.

    Example:
        >>> drop_nested_nulls({"a": None, "calls": [{"town": "Lorn", "unit": None}]})
        {'a': None, 'calls': [{'town': 'Lorn'}]}
    """
    if not any(map(_has_null_key, row.values())):
        return row
    return {name: _without_null_keys(value) for name, value in row.items()}


def _has_null_key(value: Any) -> bool:
    if isinstance(value, dict):
        return any(inner is None or _has_null_key(inner) for inner in value.values())
    return isinstance(value, list) and any(map(_has_null_key, value))


def _without_null_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null_keys(inner) for key, inner in value.items() if inner is not None}
    return [_without_null_keys(inner) for inner in value] if isinstance(value, list) else value


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
    name: str,
    outcomes: Iterable[RowOutcome],
    rows: RowSink,
    *,
    on_bad: str,
    place: Callable[[int], str],
    repairs: Sequence[RowRepair] = (),
) -> tuple[Sequence[int], list[str]]:
    """Separate good rows from bad ones.

    Args:
        name: The file, as messages name it.
        outcomes: Line or row number (from 1) and what was read there, in file order.
        rows: Takes the good rows.
        on_bad: "error" and "clean" refuse the file; "skip" leaves bad rows out while they are at most 1 % of the file.
        place: The place of a row by its number, as messages name it, once all are read: "line 7".
        repairs: What is changed in good rows.

    Returns:
        The numbers of the good rows, and one message per skipped row.

    Raises:
        DataError: If a row is bad, if too many are, or if no row is left.
    """
    numbers: MutableSequence[int] = [] if isinstance(rows, list) else array("q")
    bad: list[tuple[int, RowFault]] = []
    for number, outcome in outcomes:
        if isinstance(outcome, RowFault):
            bad.append((number, outcome))
        else:
            rows.append(reduce(lambda row, repair: repair.apply(row, number), repairs, outcome))
            numbers.append(number)
    return numbers, judge_bad_rows(name, bad, len(rows), on_bad=on_bad, place=place)


def judge_bad_rows(
    name: str, bad: Sequence[tuple[int, RowFault]], good: int, *, on_bad: str, place: Callable[[int], str]
) -> list[str]:
    """One message for each bad row that may be left out; arguments as of `separate_bad_rows`.

    Args:
        name: The file, as messages name it.
        bad: Their numbers and faults.
        good: How many rows are not bad.
        on_bad: What becomes of a file with bad rows.
        place: The place of a row by its number.

    Raises:
        DataError: If a row is bad, if too many are, or if no row is left.
    """
    spoilt = sum(fault.lines_lost for _, fault in bad)
    messages = [
        f"{name} {place(number)}"
        + (translate(", column {column}", column=fault.column) if fault.column else "")
        + f": {fault.message}"
        for number, fault in bad
    ]
    if bad and on_bad != "skip":
        raise DataError(summarize_messages(messages))
    if spoilt > MAX_SKIPPED_SHARE * (good + spoilt):
        share = translate(
            "{spoilt} of {good} {unit}s", spoilt=spoilt, good=good + spoilt, unit=place(1).partition(" ")[0]
        )
        raise DataError(
            translate(
                "{name}: {share} cannot be read, and data.on_bad=skip stops above "
                "{max_skipped_share:.0%}: so many point to a fault of the whole file\n{messages}",
                name=name,
                share=share,
                max_skipped_share=MAX_SKIPPED_SHARE,
                messages=summarize_messages(messages),
            )
        )
    if not good:
        raise DataError(translate("{name} holds 0 records; there is nothing to learn from it", name=name))
    return messages


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
