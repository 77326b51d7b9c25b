"""Strict JSON: rows of `.jsonl` and `.json` files with their line numbers, and nothing silently changed.

The standard parser keeps the last of two equal keys, reads NaN, turns 1e999 into infinity and accepts half
characters that crash a tokenizer later.  Here each is a fault of its line.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, MutableSequence
from typing import Any, NoReturn

from tunelab.data.bad_rows import CLEAN_ADVICE, EXCERPT_CHARS, RowDict, RowFault, RowOutcome, excerpt
from tunelab.errors import DataError
from tunelab.language.translation import translate

LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character: legal in Python, in no file
MAX_INTEGER_CHARS = 20  # characters of -2**63 and of 2**64 - 1


class LossyJsonError(ValueError):
    """Valid JSON that would not survive unchanged."""


def _parse_object(pairs: list[tuple[str, Any]]) -> RowDict:
    row = dict(pairs)
    if len(row) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise LossyJsonError(
            translate(
                "key {twice!r} stands twice in one object; only one value can be meant, remove the other", twice=twice
            )
        )
    return row


def _parse_integer(digits: str) -> int:
    if len(digits) <= MAX_INTEGER_CHARS and -(2**63) <= (value := int(digits)) < 2**64:
        return value
    raise LossyJsonError(
        translate("integer {digits} does not fit in 64 bits; write it as a text in quotes", digits=digits[:24])
    )


def _parse_float(digits: str) -> float:
    if math.isfinite(value := float(digits)):
        return value
    raise LossyJsonError(
        translate("number {digits} is too large for a float; write it as a text in quotes", digits=digits[:24])
    )


def _refuse_constant(name: str) -> NoReturn:
    raise LossyJsonError(
        translate("{name} is not JSON and no value to learn from; use null, or drop the record", name=name)
    )


def strict_decoder(*, control_chars: bool = False) -> json.JSONDecoder:
    """A decoder that changes nothing; `control_chars` lets bare ones stand in texts, where they are about to go."""
    return json.JSONDecoder(
        object_pairs_hook=_parse_object,
        parse_int=_parse_integer,
        parse_float=_parse_float,
        parse_constant=_refuse_constant,
        strict=not control_chars,
    )


STRICT_DECODER, LENIENT_DECODER = strict_decoder(), strict_decoder(control_chars=True)


def unusable_text_reason(row: RowDict) -> str | None:
    """The reason why text in a row (plain JSON, any depth) breaks later steps; None where none does."""
    for column, value in row.items():
        if reason := unusable_cell_reason([column, value]):
            return translate(
                "a text holds {reason} (column {column!r}); {clean_advice}",
                reason=reason,
                column=column,
                clean_advice=CLEAN_ADVICE,
            )
    return None


def unusable_cell_reason(value: Any) -> str | None:
    """What a value holds that breaks later steps, and why; None where it holds no such thing."""
    pending = [value]
    while pending:
        match pending.pop():
            case str(text):
                if "\0" in text:
                    return translate("the NUL character (\\u0000), which tokenizers and C code cut off")
                if not text.isascii() and LONE_SURROGATE.search(text):
                    return translate("half a character (a lone surrogate), which has no encoding")
            case dict(inner):
                pending += [*inner, *inner.values()]
            case list(inner):
                pending += inner
    return None


def parse_line(line: str, max_line_bytes: int, *, clean: bool = False) -> RowDict | RowFault:
    """One line of JSON Lines: an object, or why not; with `clean` the characters of its texts are not checked."""
    if exceeds_bytes(line, max_line_bytes):
        return RowFault(
            translate(
                "longer than data.max_line_bytes={max_line_bytes}; cut the record, or raise the limit",
                max_line_bytes=max_line_bytes,
            )
        )
    if not line.isascii() and (
        bad := LONE_SURROGATE.search(line)
    ):  # left by decode_bytes(keep_going=True), or by an odd codec
        at = bad.start() + 1
        return RowFault(
            translate("holds bytes that are no text in this encoding, at: {line}", line=excerpt(line, at)), at
        )
    try:
        value = (LENIENT_DECODER if clean else STRICT_DECODER).decode(line)
    except json.JSONDecodeError as error:
        advice = f"; {translate(CLEAN_ADVICE)}" if error.msg.startswith("Invalid control character") else ""
        return RowFault(
            translate(
                "not JSON: {msg}, at: {line}{advice}", msg=error.msg, line=excerpt(line, error.pos + 1), advice=advice
            ),
            error.pos + 1,
        )
    except LossyJsonError as error:
        return RowFault(translate("{error}, in: {line}", error=error, line=excerpt(line)))
    except RecursionError:
        return RowFault(translate("nested too deeply to read; flatten the record"))
    return validate_row(value, line if "\\u" in line and not clean else "")


def exceeds_bytes(text: str, max_bytes: int) -> bool:
    """Whether `text` takes more than `max_bytes` in UTF-8."""
    widest = 4  # bytes of a character in UTF-8, at most
    return len(text) * widest > max_bytes and len(text.encode("utf-8", "surrogatepass")) > max_bytes


def validate_row(value: Any, suspect: str) -> RowDict | RowFault:
    """`value` if it is an object of usable text; `suspect` is empty where the source holds no escape."""
    if isinstance(value, list):
        return RowFault(
            translate("an array; JSON Lines has one object a line. Put each object on its own line, or name it .json")
        )
    if not isinstance(value, dict):
        return RowFault(
            translate('a bare {kind}; a record is an object such as {{"text": ...}}', kind=type(value).__name__)
        )
    if suspect and (reason := unusable_text_reason(value)):
        return RowFault(translate("{reason}, in: {suspect}", reason=reason, suspect=excerpt(suspect)))
    return value


def read_json_lines(lines: Iterable[str], max_line_bytes: int, *, clean: bool = False) -> Iterator[RowOutcome]:
    """Rows of a `.jsonl` file with their line numbers from 1.  Blank lines are no records.

    Lines end at a line feed only: U+2028 and friends are legal inside JSON texts.
    """
    for number, line in enumerate(lines, start=1):
        if line and not line.isspace():
            yield number, parse_line(line, max_line_bytes, clean=clean)


WHITESPACE = re.compile(r"[ \t\r\n]*")
MAX_PASSED_CHARS = 2**16  # characters that may lie behind before they are let go


class _JsonArrayReader:
    """Walks JSON text one array element or one member at a time; of a long text only a window is held."""

    def __init__(
        self, name: str, pieces: Iterable[str], max_line_bytes: int, starts: MutableSequence[int], *, clean: bool
    ) -> None:
        self.name, self.max_line_bytes, self.starts, self.clean = name, max_line_bytes, starts, clean
        self.decoder = LENIENT_DECODER if clean else STRICT_DECODER
        self.pieces, self.ended = iter(pieces), False
        self.text = ""  # the window
        self.at = 0  # start of what is being read
        self.line, self.column, self.counted = 1, 1, 0  # place in the file of the character at `counted`
        self.first = ""  # first character of the file that is not space

    def read_more(self) -> None:
        """Read at least as much text again as lies ahead."""
        target_chars = len(self.text) - self.at + 1
        more: list[str] = []
        while sum(map(len, more)) < target_chars and not self.ended:
            piece = next(self.pieces, None)
            self.ended = piece is None
            more.append(piece or "")
        self.text += "".join(more)

    def drop_passed(self) -> None:
        """Drop most of what lies behind; an error still shows the neighbourhood."""
        if self.at > max(MAX_PASSED_CHARS, len(self.text) // 2):
            self.line_and_column(gone := max(0, self.at - 2 * EXCERPT_CHARS))
            self.text, self.at, self.counted = self.text[gone:], self.at - gone, self.counted - gone

    def line_and_column(self, at: int) -> tuple[int, int]:
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
            self.at = WHITESPACE.match(self.text, self.at).end()  # type: ignore[union-attr]  # matches the empty text too
            if self.at < len(self.text) or self.ended:
                self.first = self.first or self.text[self.at : self.at + 1]
                return self.text[self.at : self.at + 1]
            self.read_more()

    def expect(self, *expected: str) -> str:
        if (char := self.peek()) not in expected or not char:
            raise json.JSONDecodeError(f"Expecting {' or '.join(expected)}", self.text, self.at)
        self.at += 1
        return char

    def value(self) -> Any:
        """The value that comes next; `at` is behind it then."""
        self.peek()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError:
                if self.ended:
                    raise
            else:
                if end + 2 < len(self.text) or self.ended:  # "1" near the end of the window may be "1e+9" or "12"
                    self.at = end
                    return value
            self.read_more()

    def element(self) -> RowOutcome:
        self.peek()
        self.drop_passed()
        self.starts.append(self.line_and_column(self.at)[0])
        number, start = len(self.starts), self.at
        value = self.value()
        text = self.text[start : self.at]
        if exceeds_bytes(text, self.max_line_bytes):
            return number, RowFault(
                translate(
                    "longer than data.max_line_bytes={max_line_bytes}; cut it, or raise the limit",
                    max_line_bytes=self.max_line_bytes,
                )
            )
        if not isinstance(value, dict):
            return number, RowFault(translate("{words} is no object; each record must be one", words=excerpt(text)))
        return number, validate_row(value, "" if self.clean else text)

    def array(self) -> Iterator[RowOutcome]:
        """The elements of the array that comes next."""
        self.expect("[")
        if self.peek() == "]":
            self.expect("]")
            return
        yield self.element()
        while self.expect(",", "]") == ",":
            yield self.element()

    def only_array(self) -> Iterator[RowOutcome]:
        """The elements of the one array among the members of the object that comes next."""
        array_keys: list[str] = []
        self.expect("{")
        more = self.peek() != "}"
        if not more:
            self.expect("}")
        while more:
            if self.peek() != '"':
                raise json.JSONDecodeError("Expecting a key in double quotes", self.text, self.at)
            key = self.value()
            if key in array_keys:
                raise LossyJsonError(translate("key {key!r} stands twice in one object; remove one", key=key))
            self.expect(":")
            if self.peek() != "[":
                self.value()
            else:
                array_keys.append(key)
                for element in self.array():
                    if len(array_keys) == 1:  # a second array is gone through only to be named
                        yield element
            more = self.expect(",", "}") == ","
        self.end()
        if len(array_keys) != 1:
            got = (
                translate("{count} [array|arrays] ({names})", count=len(array_keys), names=", ".join(array_keys))
                if array_keys
                else translate("an object without an array")
            )
            raise DataError(
                translate(
                    '{name}: want an array of records, or an object such as {{"data": [...]}}, got {got}',
                    name=self.name,
                    got=got,
                )
            )

    def end(self) -> None:
        """Check that only whitespace follows."""
        if self.peek():
            raise json.JSONDecodeError("Extra data", self.text, self.at)

    def records(self) -> Iterator[RowOutcome]:
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
                raise DataError(
                    translate(
                        "{name}: want an array of records, got a bare {kind}",
                        name=self.name,
                        kind=type(value).__name__,
                    )
                )

    def raise_data_error(self, fault: Exception) -> NoReturn:
        """Raise a DataError that says what is wrong and where."""
        if isinstance(fault, json.JSONDecodeError):
            lines = fault.msg == "Extra data" and self.first == "{"
            hint = translate("; one object after another is JSON Lines, name the file .jsonl") if lines else ""
            if fault.pos + EXCERPT_CHARS >= len(self.text):
                self.read_more()  # for the neighbourhood
            line, column = self.line_and_column(fault.pos)
            start, end = self.text.rfind("\n", 0, fault.pos) + 1, self.text.find("\n", fault.pos)
            context = excerpt(self.text[start : end if end >= 0 else None], fault.pos - start + 1)
            record = (
                translate(", record{record_number}", record_number=self.record_number()) if self.record_number() else ""
            )
            place = translate(
                "{name} line {line}, column {column}{record}", name=self.name, line=line, column=column, record=record
            )
            if fault.msg.startswith("Invalid control character"):
                hint = translate("; data.on_bad=clean takes such characters out")
            raise DataError(
                translate(
                    "{place}: not JSON: {msg}, at: {context}{hint}",
                    place=place,
                    msg=fault.msg,
                    context=context,
                    hint=hint,
                )
            ) from fault
        what = translate("nested too deeply to read; flatten it") if isinstance(fault, RecursionError) else str(fault)
        line = self.line_and_column(self.at)[0]
        raise DataError(
            translate(
                "{name}, record{record_number} of line {line}: {what}",
                name=self.name,
                record_number=self.record_number(),
                line=line,
                what=what,
            )
        ) from fault

    def record_number(self) -> str:
        """The number of the record that is being read, where its line does not say it; empty where it does."""
        several = len(self.starts) > 1 and self.starts[-1] == self.starts[-2]
        return f" {len(self.starts)}" if several else ""


def read_json_array(
    name: str, pieces: Iterable[str], max_line_bytes: int, starts: MutableSequence[int], *, clean: bool = False
) -> Iterator[RowOutcome]:
    """Rows of a `.json` file with their numbers from 1.

    Takes an array of objects, or an object with exactly one array among its values, such as {"data": [...]}.
    A fault of syntax cannot be skipped: nobody knows where the next record starts.

    Args:
        name: The file, as messages name it.
        pieces: Its text, cut anywhere.
        max_line_bytes: Longest record, in bytes of UTF-8.
        starts: Takes the line that each record starts on, from 1.
        clean: Whether the characters of texts are not checked, since they are about to be cleaned.

    Raises:
        DataError: If the file is not strict JSON or holds no such array.
    """
    reader = _JsonArrayReader(name, pieces, max_line_bytes, starts, clean=clean)
    try:
        yield from reader.records()
    except (json.JSONDecodeError, LossyJsonError, RecursionError) as fault:
        reader.raise_data_error(fault)
