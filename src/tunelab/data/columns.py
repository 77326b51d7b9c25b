"""A record seen through the user's own column names, columns that nobody reads, and names that no record has.  Pure."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from typing import Any, Final
from unicodedata import category

from tunelab.data.lazy_sequences import MappedView
from tunelab.errors import DataError
from tunelab.language.translation import translate

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
        if not self.columns:
            return ours in self.record
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
            raise DataError(
                translate(
                    "'{name}' is missing; columns: {seen}; name yours with data.columns.{ours}=...",
                    name=name,
                    seen=seen,
                    ours=ours,
                )
            )
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
    if "." not in name:
        return MISSING
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
        raise DataError(
            translate(
                "'{name}' is {kind}, not text: {value!r}; write it as text",
                name=name,
                kind=type(value).__name__,
                value=preview_value(value),
            )
        )
    if why is not None and not (value and value.strip()):
        raise DataError(translate("'{name}' is empty; {why}", name=name, why=why))
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
        hint = translate("did you mean '{near}'? ", near=near[0]) if near else ""
        if len(names) == 1 and name in re.split(r"[;|]", names[0]):
            hint = translate("its cells are parted by something else than the comma of a csv or the tab of a tsv; ")
        faults.append(
            translate(
                "{setting}={name}: {file} has no such column; {hint}it has {value}",
                setting=setting,
                name=name,
                file=file,
                hint=hint,
                value=", ".join(names) or "none",
            )
        )
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


class ColumnCounts:
    """Which columns records have, and in how many of them which hold something, and text.

    Attributes:
        names: Every column, in order of first appearance.
        patterns: Columns of a record, and of each whether it is `BLANK`, `FILLED` or `TEXT` -> number of records.
    """

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self.patterns: Counter[tuple[tuple[str, ...], tuple[int, ...]]] = Counter()

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Count some records."""
        patterns = self.patterns
        for row in rows:
            patterns[tuple(row), tuple(map(cell_kind, row.values()))] += 1
        for names, _ in patterns:
            self.names |= dict.fromkeys(names)

    def merge(self, later: "ColumnCounts") -> None:
        """Add the counts of records that come after these."""
        self.names |= later.names
        for pattern, count in later.patterns.items():
            self.patterns[pattern] += count

    def use(
        self, columns_read: Callable[[Collection[str]], Collection[str]], ignored: Sequence[str] = ()
    ) -> "ColumnUse":
        """The columns that are read, and those with text that are not.

        Args:
            columns_read: Gives the columns that are read of a record, by those that hold something.
            ignored: Columns that were left out on purpose.
        """
        read, unread = set[str](), Counter[str]()
        for (names, kinds), count in self.patterns.items():
            cells = list(zip(names, kinds, strict=True))
            used = frozenset(columns_read(frozenset(name for name, kind in cells if kind != BLANK)))
            read |= used
            for name in {name for name, kind in cells if kind == TEXT} - used:
                unread[name] += count
        return ColumnUse(
            [name for name in self.names if name in read],
            {name: unread[name] for name in self.names if unread[name]},
            list(ignored),
        )


def survey_columns(
    rows: Iterable[Mapping[str, Any]],
    columns_read: Callable[[Collection[str]], Collection[str]],
    ignored: Sequence[str] = (),
) -> ColumnUse:
    """The columns that are read, and those with text that are not; arguments as of `ColumnCounts.use`.

    Example:
        >>> survey_columns([{"text": "a", "id": "7", "note": "b"}], lambda filled: {"text"}).unread
        {'note': 1}
    """
    counts = ColumnCounts()
    counts.add(rows)
    return counts.use(columns_read, ignored)


BLANK, FILLED, TEXT = range(3)
NUMBER_LETTERS = "iInN"  # first letters of texts that are numbers: inf, nan


def cell_kind(value: Any) -> int:
    """Whether a cell holds nothing, something, or text that is no number."""
    if isinstance(value, str) and value and value[0].isalpha() and value[0] not in NUMBER_LETTERS:
        return TEXT
    return BLANK if is_blank(value) else TEXT if holds_text(value) else FILLED


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


def plainly_says_something(record: Mapping[str, Any]) -> bool:
    """Whether each cell of a record begins with a letter or digit, is empty, or is no text: no look at it is needed."""
    return all(
        (not value or value[0].isalnum()) if type(value) is str else value is None or type(value) in (int, float, bool)
        for value in record.values()
    )


def empty_texts(texts: Mapping[str, str]) -> dict[str, str]:
    """Those texts of a record that hold something, but nothing that says anything."""
    return {kind: text for kind, text in texts.items() if text and not says_something(text)}


def says_something(text: str) -> bool:
    """Whether a text holds a letter, a digit or a symbol such as an emoji, in any script.

    Example:
        >>> says_something(" ...?! "), says_something("👍")
        (False, True)
    """
    return any(character.isalnum() or category(character)[0] in "LNS" for character in text)


def unread_column_faults(use: ColumnUse, advice: Callable[[str], str | None], file: str) -> list[str]:
    """A fault for each unread column whose text belongs to what is asked, by its name.

    Args:
        use: The columns of a source.
        advice: How to have a column read; None where leaving it unread is no fault.
        file: The source, for the message.
    """
    return [
        translate(
            "column '{name}' of {file} holds text in {rows:,} [row|rows], and nothing reads it, so the "
            "model would never see it; {way}, or leave it out on purpose: "
            "data.ignore_columns=[{names}]",
            name=name,
            file=file,
            rows=rows,
            way=way,
            names=",".join([*use.ignored, name]),
        )
        for name, rows in use.unread.items()
        if (way := advice(name)) is not None
    ]


def without_columns(rows: Sequence[Mapping[str, Any]], names: Collection[str]) -> Sequence[Mapping[str, Any]]:
    """Rows without some columns, each made on access."""
    return MappedView(partial(drop_columns, names=frozenset(names)), rows) if names else rows


def drop_columns(row: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """A row without some columns."""
    return {name: value for name, value in row.items() if name not in names}
