"""A record seen through the user's own column names.  Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tunelab.errors import DataError

MISSING: Final = object()
LONGEST_INDEX: Final = 9  # digits of a place in a list


@dataclass(frozen=True, slots=True)
class Row:
    """One record and the names its columns go by.

    Attributes:
        record: One line of the user's data.
        columns: Our name of a column -> the user's name of it, or the way to it: `instances.0.output`.
    """

    record: Mapping[str, Any]
    columns: Mapping[str, str]

    def name(self, ours: str) -> str:
        """The user's name of a column."""
        return self.columns.get(ours, ours)

    def has(self, ours: str) -> bool:
        """Whether the record has the column."""
        return find(self.record, self.name(ours)) is not MISSING

    def value(self, ours: str) -> Any:
        """What the column holds, None where the record lacks it."""
        found = find(self.record, self.name(ours))
        return None if found is MISSING else found

    def text(self, ours: str, why: str) -> str:
        """The text of a column that must hold one; `why` says what an empty one costs."""
        name, found = self.name(ours), find(self.record, self.name(ours))
        if found is MISSING:
            seen = ", ".join(map(str, self.record)) or "none"
            raise DataError(f"'{name}' is missing; columns: {seen}; name yours with data.columns.{ours}=...")
        return checked_text(found, name, why)

    def optional(self, ours: str) -> str:
        """The text of a column that may be missing, null or empty."""
        value = self.value(ours)
        return "" if value is None else checked_text(value, self.name(ours), None)


def find(record: Mapping[str, Any], name: str) -> Any:
    """What stands under a name, else at the end of the way that it describes; `MISSING` where nothing does.

    Example:
        >>> find({"instances": [{"output": "4"}]}, "instances.0.output")
        '4'
    """
    if name in record:
        return record[name]
    found: Any = record
    for part in name.split("."):
        if isinstance(found, Mapping) and part in found:
            found = found[part]
        elif isinstance(found, list | tuple) and place(part) < len(found):
            found = found[place(part)]
        else:
            return MISSING
    return found


def place(part: str) -> int:
    """The place in a list that a part of a name stands for; one beyond any list where it is no number."""
    return int(part) if part.isdecimal() and len(part) <= LONGEST_INDEX else 10**LONGEST_INDEX


def checked_text(value: Any, name: str, why: str | None) -> str:
    """The value itself if it is text, and not blank where `why` says what a blank one costs."""
    if value is not None and not isinstance(value, str):
        raise DataError(f"'{name}' is {type(value).__name__}, not text: {shown(value)!r}; write it as text")
    if why is not None and not (value and value.strip()):
        raise DataError(f"'{name}' is empty; {why}")
    return value or ""


def shown(value: Any) -> str:
    """The beginning of a value, for a message; its type where it is too deep or too long to be written."""
    try:
        return str(value)[:60]
    except (ValueError, RecursionError):
        return type(value).__name__
