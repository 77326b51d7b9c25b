"""Rows of a `.json` file: an array of objects, each with the line it starts on."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from tunelab.data.bad_rows import Fault, Row, excerpt
from tunelab.data.json_rows import DECODER, RefusedError, as_row, too_long
from tunelab.errors import DataError

SPACE = re.compile(r"[ \t\r\n]*")


class _Element(NamedTuple):
    start: int  # offsets into the text
    end: int
    value: Any


class _Reader:
    """Walks JSON text one array element or one member at a time, so that each keeps its offset."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0  # start of what is being read

    def peek(self) -> str:
        """The next character that is not space; empty at the end."""
        self.at = SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]  # matches the empty text too
        return self.text[self.at : self.at + 1]

    def take(self, *wanted: str) -> str:
        if (found := self.peek()) not in wanted or not found:
            raise json.JSONDecodeError(f"Expecting {' or '.join(wanted)}", self.text, self.at)
        self.at += 1
        return found

    def value(self) -> _Element:
        self.peek()
        start = self.at
        value, self.at = DECODER.raw_decode(self.text, start)
        return _Element(start, self.at, value)

    def array(self) -> list[_Element]:
        """The elements of the array that comes next."""
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return []
        elements = [self.value()]
        while self.take(",", "]") == ",":
            elements.append(self.value())
        return elements

    def arrays(self) -> dict[str, list[_Element]]:
        """The members of the object that comes next whose value is an array."""
        found: dict[str, list[_Element]] = {}
        self.take("{")
        if self.peek() == "}":
            self.take("}")
            return found
        while True:
            if self.peek() != '"':
                raise json.JSONDecodeError("Expecting a key in double quotes", self.text, self.at)
            key = self.value().value
            if key in found:
                raise RefusedError(f"key {key!r} stands twice in one object; remove one")
            self.take(":")
            if self.peek() == "[":
                found[key] = self.array()
            else:
                self.value()
            if self.take(",", "}") == "}":
                return found


def json_array(name: str, text: str, max_line_bytes: int) -> Iterator[tuple[int, Row | Fault]]:
    """Rows of a `.json` file with the line each starts on, from 1.

    Takes an array of objects, or an object with exactly one array among its values, such as {"data": [...]}.
    A fault of syntax cannot be skipped: nobody knows where the next record starts.

    Raises:
        DataError: If the file is not strict JSON or holds no such array.
    """
    reader = _Reader(text)
    try:
        elements = _top(name, reader)
    except json.JSONDecodeError as error:
        lines = error.msg == "Extra data" and text[: error.pos].lstrip()[:1] == "{"
        hint = "; one object after another is JSON Lines, name the file .jsonl" if lines else ""
        place = f"{name} line {error.lineno}, column {error.colno}"
        line = text.split("\n", error.lineno)[error.lineno - 1]
        raise DataError(f"{place}: not JSON: {error.msg}, at: {excerpt(line, error.colno)}{hint}") from error
    except RefusedError as error:
        line_number = text.count("\n", 0, reader.at) + 1
        raise DataError(f"{name}, record of line {line_number}: {error}") from error
    except RecursionError as error:
        line_number = text.count("\n", 0, reader.at) + 1
        raise DataError(f"{name}, record of line {line_number}: nested too deeply to read; flatten it") from error
    number, counted = 1, 0
    for start, end, value in elements:
        number, counted = number + text.count("\n", counted, start), start
        if too_long(text[start:end], max_line_bytes):
            yield number, Fault(f"longer than data.max_line_bytes={max_line_bytes}; cut it, or raise the limit")
        elif not isinstance(value, dict):
            yield number, Fault(f"{excerpt(text[start:end])} is no object; each record must be one")
        else:
            yield number, as_row(value, text[start:end])


def _top(name: str, reader: _Reader) -> list[_Element]:
    """The records of a whole file."""
    match reader.peek():
        case "":
            return []
        case "[":
            elements = reader.array()
        case "{":
            arrays = reader.arrays()
            if reader.peek():
                raise json.JSONDecodeError("Extra data", reader.text, reader.at)
            if len(arrays) != 1:
                found = f"{len(arrays)} arrays ({', '.join(arrays)})" if arrays else "an object without an array"
                raise DataError(
                    f'{name}: want an array of records, or an object such as {{"data": [...]}}, got {found}'
                )
            (elements,) = arrays.values()
        case _:
            value = reader.value().value
            raise DataError(f"{name}: want an array of records, got a bare {type(value).__name__}")
    if reader.peek():
        raise json.JSONDecodeError("Extra data", reader.text, reader.at)
    return elements
