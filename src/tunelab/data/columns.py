"""A record seen through the user's own column names, columns that nobody reads, and names that no record has.  Pure."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from typing import Any, Final

from tunelab.data.lazy_sequences import MappedView
from tunelab.errors import DataError

MISSING: Final = object()
MAX_INDEX_DIGITS: Final = 9  # digits of a list index


@dataclass(frozen=True, slots=True)
class ColumnView:
    """One record and the names its columns go by.

    Attributes:
        record: One line of the user's data.
        columns: Our name of a column -> the user's name of it, or the path to it: `instances.0.output`.
    """

    record: Mapping[str, Any]
    columns: Mapping[str, str]

    def user_name(self, ours: str) -> str:
        """The user's name of a column."""
        return self.columns.get(ours, ours)

    def has(self, ours: str) -> bool:
        """Whether the record has the column."""
        return lookup_path(self.record, self.user_name(ours)) is not MISSING

    def value(self, ours: str) -> Any:
        """The value of the column; None where the record lacks it."""
        value = lookup_path(self.record, self.user_name(ours))
        return None if value is MISSING else value

    def text(self, ours: str, why: str) -> str:
        """The text of a column that must hold one; `why` says what an empty one costs."""
        name, value = self.user_name(ours), lookup_path(self.record, self.user_name(ours))
        if value is MISSING:
            seen = ", ".join(map(str, self.record)) or "none"
            raise DataError(f"'{name}' is missing; columns: {seen}; name yours with data.columns.{ours}=...")
        return require_text(value, name, why)

    def optional(self, ours: str) -> str:
        """The text of a column that may be missing, null or empty."""
        value = self.value(ours)
        return "" if value is None else require_text(value, self.user_name(ours), None)


def lookup_path(record: Mapping[str, Any], name: str) -> Any:
    """The value under a column name or a dotted path; `MISSING` where there is none.

    Example:
        >>> lookup_path({"instances": [{"output": "4"}]}, "instances.0.output")
        '4'
    """
    if name in record:
        return record[name]
    value: Any = record
    for part in name.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list | tuple) and list_index(part) < len(value):
            value = value[list_index(part)]
        else:
            return MISSING
    return value


def list_index(part: str) -> int:
    """The list index that a part of a path names; one beyond any list where it is no number."""
    return int(part) if part.isdecimal() and len(part) <= MAX_INDEX_DIGITS else 10**MAX_INDEX_DIGITS


def require_text(value: Any, name: str, why: str | None) -> str:
    """The value itself if it is text, and not blank where `why` says what a blank one costs."""
    if value is not None and not isinstance(value, str):
        raise DataError(f"'{name}' is {type(value).__name__}, not text: {preview_value(value)!r}; write it as text")
    if why is not None and not (value and value.strip()):
        raise DataError(f"'{name}' is empty; {why}")
    return value or ""


def preview_value(value: Any) -> str:
    """The beginning of a value, for a message; its type where it is too deep or too long to be written."""
    try:
        return str(value)[:60]
    except (ValueError, RecursionError):
        return type(value).__name__


def missing_column_faults(
    named_columns: Iterable[tuple[str, str]], rows: Iterable[Mapping[str, Any]], file: str
) -> list[str]:
    """A fault for each named column that no record has; a column that some records lack is no fault.

    A misspelt name of an optional column would otherwise change nothing and be noticed by nobody.

    Args:
        named_columns: Pairs of a setting and the column it names, or the path to it: `instances.0.output`.
        rows: The records of the file.
        file: Its name, for the message.

    Example:
        >>> missing_column_faults([("data.text", "txet")], [{"text": "a", "label": "b"}], "a.csv")
        ["data.text=txet: a.csv has no such column; did you mean 'text'? it has text, label"]
    """
    missing = dict.fromkeys(named_columns)
    seen: dict[str, None] = {}
    for row in rows:
        for setting, name in [pair for pair in missing if lookup_path(row, pair[1]) is not MISSING]:
            del missing[setting, name]
        if not missing:
            return []
        seen |= dict.fromkeys(map(str, row))
    names = list(seen)
    faults = []
    for setting, name in missing:
        near = get_close_matches(name, names, 1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        if len(names) == 1 and name in re.split(r"[;|]", names[0]):
            hint = "its cells are parted by something else than the comma of a csv or the tab of a tsv; "
        faults.append(f"{setting}={name}: {file} has no such column; {hint}it has {', '.join(names) or 'none'}")
    return faults


SYSTEM_NAMES: Final = ("system", "system_prompt", "system_message")
HISTORY_NAMES: Final = ("history", "chat_history", "conversation_history", "dialogue_history")
CONTEXT_NAMES: Final = ("context",)
NEEDED_NAMES: Final = (*SYSTEM_NAMES, *HISTORY_NAMES, *CONTEXT_NAMES)  # what they hold is part of the question
MAX_NUMBER_CHARS = 32  # characters of a text that may be a number


@dataclass
class ColumnUse:
    """What is done with the columns of the records of a source.

    Attributes:
        read: Columns that the task reads, in order of first appearance.
        unread: Columns with text that it does not -> how many records hold such text.
        ignored: Columns that are left out on purpose.
    """

    read: list[str] = field(default_factory=list)
    unread: dict[str, int] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return {"read": self.read, "unread": self.unread, "ignored": self.ignored}


def survey_columns(
    rows: Iterable[Mapping[str, Any]],
    columns_read: Callable[[Collection[str]], Collection[str]],
    ignored: Sequence[str] = (),
) -> ColumnUse:
    """The columns that are read, and those with text that are not.

    Args:
        rows: The records, the ignored columns no longer in them.
        columns_read: Gives the columns that are read of a record, by those that hold something.
        ignored: Columns that were left out on purpose.

    Example:
        >>> survey_columns([{"text": "a", "id": "7", "note": "b"}], lambda filled: {"text"}).unread
        {'note': 1}
    """
    seen: dict[str, None] = {}
    records: Counter[tuple[frozenset[str], frozenset[str]]] = Counter()  # by the columns that hold something, and text
    for row in rows:
        seen |= dict.fromkeys(row)
        filled = frozenset(name for name, value in row.items() if not is_blank(value))
        records[filled, frozenset(name for name in filled if holds_text(row[name]))] += 1
    read, unread = set[str](), Counter[str]()
    for (filled, texts), count in records.items():
        used = frozenset(columns_read(filled))
        read |= used
        for name in texts - used:
            unread[name] += count
    return ColumnUse(
        [name for name in seen if name in read], {name: unread[name] for name in seen if unread[name]}, list(ignored)
    )


def is_blank(value: Any) -> bool:
    """Whether a cell holds nothing: null, blank text, an empty list or mapping."""
    return value is None or (not value or value.isspace() if isinstance(value, str) else value in ([], {}, ()))


def holds_text(value: Any) -> bool:
    """Whether a value holds text that is no number, at any depth.

    Example:
        >>> holds_text("17.5"), holds_text(["17", {"a": "b"}])
        (False, True)
    """
    if isinstance(value, str):
        if len(value) <= MAX_NUMBER_CHARS:
            with suppress(ValueError):
                float(value)
                return False
        return not is_blank(value)
    if isinstance(value, Mapping):
        return any(map(holds_text, value.values()))
    return isinstance(value, list | tuple) and any(map(holds_text, value))


def unread_column_faults(use: ColumnUse, advice: Callable[[str], str | None], file: str) -> list[str]:
    """A fault for each unread column whose text belongs to what is asked, by its name.

    Args:
        use: The columns of a source.
        advice: How to have a column read; None where leaving it unread is no fault.
        file: The source, for the message.
    """
    return [
        f"column '{name}' of {file} holds text in {rows:,} rows, and nothing reads it, so the model would never see "
        f"it; {way}, or leave it out on purpose: data.ignore_columns=[{','.join([*use.ignored, name])}]"
        for name, rows in use.unread.items()
        if (way := advice(name)) is not None
    ]


def without_columns(rows: Sequence[Mapping[str, Any]], names: Collection[str]) -> Sequence[Mapping[str, Any]]:
    """Rows without some columns, each made on access."""
    return MappedView(partial(drop_columns, names=frozenset(names)), rows) if names else rows


def drop_columns(row: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """A row without some columns."""
    return {name: value for name, value in row.items() if name not in names}
