"""Rows of a `.json` file: an array of objects, each with the line it starts on."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from tunelab.data.bad_rows import EXCERPT, Fault, Row, excerpt
from tunelab.data.json_rows import DECODER, RefusedError, as_row, too_long
from tunelab.errors import DataError

SPACE = re.compile(r"[ \t\r\n]*")
BEHIND = 2**16  # characters that may lie behind before they are let go
Outcome = tuple[int, Row | Fault]


class _Reader:
    """Walks JSON text one array element or one member at a time; of a long text only a window is held."""

    def __init__(self, name: str, pieces: Iterable[str], max_line_bytes: int) -> None:
        self.name, self.max_line_bytes = name, max_line_bytes
        self.pieces, self.ended = iter(pieces), False
        self.text = ""  # the window
        self.at = 0  # start of what is being read
        self.line, self.column, self.counted = 1, 1, 0  # place in the file of the character at `counted`
        self.first = ""  # first character of the file that is not space

    def grow(self) -> None:
        """Take in at least as much text again as is ahead."""
        wanted = len(self.text) - self.at + 1
        more: list[str] = []
        while sum(map(len, more)) < wanted and not self.ended:
            piece = next(self.pieces, None)
            self.ended = piece is None
            more.append(piece or "")
        self.text += "".join(more)

    def let_go(self) -> None:
        """Drop most of what lies behind; an error still shows the neighbourhood."""
        if self.at > max(BEHIND, len(self.text) // 2):
            self.place(gone := max(0, self.at - 2 * EXCERPT))
            self.text, self.at, self.counted = self.text[gone:], self.at - gone, self.counted - gone

    def place(self, at: int) -> tuple[int, int]:
        """Line and column of a character of the window, from 1."""
        at = max(at, self.counted)
        if fresh := self.text.count("\n", self.counted, at):
            self.line, self.column = self.line + fresh, at - self.text.rindex("\n", self.counted, at)
        else:
            self.column += at - self.counted
        self.counted = at
        return self.line, self.column

    def peek(self) -> str:
        """The next character that is not space; empty at the end."""
        while True:
            self.at = SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]  # matches the empty text too
            if self.at < len(self.text) or self.ended:
                self.first = self.first or self.text[self.at : self.at + 1]
                return self.text[self.at : self.at + 1]
            self.grow()

    def take(self, *wanted: str) -> str:
        if (found := self.peek()) not in wanted or not found:
            raise json.JSONDecodeError(f"Expecting {' or '.join(wanted)}", self.text, self.at)
        self.at += 1
        return found

    def value(self) -> Any:
        """The value that comes next; `at` is behind it then."""
        self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError:
                if self.ended:
                    raise
            else:
                if end + 2 < len(self.text) or self.ended:  # "1" near the end of the window may be "1e+9" or "12"
                    self.at = end
                    return value
            self.grow()

    def element(self) -> Outcome:
        self.peek()
        self.let_go()
        number, _ = self.place(self.at)
        start = self.at
        value = self.value()
        text = self.text[start : self.at]
        if too_long(text, self.max_line_bytes):
            return number, Fault(f"longer than data.max_line_bytes={self.max_line_bytes}; cut it, or raise the limit")
        if not isinstance(value, dict):
            return number, Fault(f"{excerpt(text)} is no object; each record must be one")
        return number, as_row(value, text)

    def array(self) -> Iterator[Outcome]:
        """The elements of the array that comes next."""
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        yield self.element()
        while self.take(",", "]") == ",":
            yield self.element()

    def only_array(self) -> Iterator[Outcome]:
        """The elements of the one array among the members of the object that comes next."""
        found: list[str] = []
        self.take("{")
        more = self.peek() != "}"
        if not more:
            self.take("}")
        while more:
            if self.peek() != '"':
                raise json.JSONDecodeError("Expecting a key in double quotes", self.text, self.at)
            key = self.value()
            if key in found:
                raise RefusedError(f"key {key!r} stands twice in one object; remove one")
            self.take(":")
            if self.peek() != "[":
                self.value()
            else:
                found.append(key)
                for element in self.array():
                    if len(found) == 1:  # a second array is gone through only to be named
                        yield element
            more = self.take(",", "}") == ","
        self.end()
        if len(found) != 1:
            got = f"{len(found)} arrays ({', '.join(found)})" if found else "an object without an array"
            raise DataError(f'{self.name}: want an array of records, or an object such as {{"data": [...]}}, got {got}')

    def end(self) -> None:
        """Refuse anything but space."""
        if self.peek():
            raise json.JSONDecodeError("Extra data", self.text, self.at)

    def records(self) -> Iterator[Outcome]:
        """The records of the whole file."""
        match self.peek():
            case "":
                return
            case "[":
                yield from self.array()
                self.end()
            case "{":
                yield from self.only_array()
            case _:
                value = self.value()
                raise DataError(f"{self.name}: want an array of records, got a bare {type(value).__name__}")

    def refuse(self, fault: Exception) -> NoReturn:
        """Say what is wrong and where."""
        if isinstance(fault, json.JSONDecodeError):
            lines = fault.msg == "Extra data" and self.first == "{"
            hint = "; one object after another is JSON Lines, name the file .jsonl" if lines else ""
            if fault.pos + EXCERPT >= len(self.text):
                self.grow()  # for the neighbourhood
            line, column = self.place(fault.pos)
            start, end = self.text.rfind("\n", 0, fault.pos) + 1, self.text.find("\n", fault.pos)
            shown = excerpt(self.text[start : end if end >= 0 else None], fault.pos - start + 1)
            place = f"{self.name} line {line}, column {column}"
            raise DataError(f"{place}: not JSON: {fault.msg}, at: {shown}{hint}") from fault
        what = "nested too deeply to read; flatten it" if isinstance(fault, RecursionError) else str(fault)
        raise DataError(f"{self.name}, record of line {self.place(self.at)[0]}: {what}") from fault


def json_array(name: str, pieces: Iterable[str], max_line_bytes: int) -> Iterator[Outcome]:
    """Rows of a `.json` file with the line each starts on, from 1.

    Takes an array of objects, or an object with exactly one array among its values, such as {"data": [...]}.
    A fault of syntax cannot be skipped: nobody knows where the next record starts.

    Args:
        name: The file, as messages name it.
        pieces: Its text, cut anywhere.
        max_line_bytes: Longest record, in bytes of UTF-8.

    Raises:
        DataError: If the file is not strict JSON or holds no such array.
    """
    reader = _Reader(name, pieces, max_line_bytes)
    try:
        yield from reader.records()
    except (json.JSONDecodeError, RefusedError, RecursionError) as fault:
        reader.refuse(fault)
