"""Strict JSON Lines: rows with their line numbers, and nothing silently changed.

The standard parser keeps the last of two equal keys, reads NaN, turns 1e999 into infinity and accepts half
characters that crash a tokenizer later.  Here each is a fault of its line.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from tunelab.data.bad_rows import Fault, Row, excerpt

HALF = re.compile("[\ud800-\udfff]")  # half a character: legal in Python, in no file
LONGEST_INTEGER = 20  # characters of -2**63 and of 2**64 - 1


class RefusedError(ValueError):
    """Valid JSON that would not survive unchanged."""


def _object(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise RefusedError(f"key {twice!r} stands twice in one object; only one value can be meant, remove the other")
    return row


def _integer(digits: str) -> int:
    if len(digits) <= LONGEST_INTEGER and -(2**63) <= (value := int(digits)) < 2**64:
        return value
    raise RefusedError(f"integer {digits[:24]} does not fit in 64 bits; write it as a text in quotes")


def _number(digits: str) -> float:
    if math.isfinite(value := float(digits)):
        return value
    raise RefusedError(f"number {digits[:24]} is too large for a float; write it as a text in quotes")


def _constant(name: str) -> NoReturn:
    raise RefusedError(f"{name} is not JSON and no value to learn from; use null, or drop the record")


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_constant)


def unusable_text(value: Any) -> str | None:
    """Why a value (plain JSON, any depth) holds text that breaks later steps; None where it holds none."""
    pending = [value]
    while pending:
        match pending.pop():
            case str(text):
                if "\0" in text:
                    return "a text holds the NUL character (\\u0000), which tokenizers and C code cut off; remove it"
                if not text.isascii() and HALF.search(text):
                    return "a text holds half a character (a lone surrogate), which has no encoding; remove it"
            case dict(inner):
                pending += [*inner, *inner.values()]
            case list(inner):
                pending += inner
    return None


def parse_line(line: str, max_line_bytes: int) -> Row | Fault:
    """One line of JSON Lines: an object, or why not."""
    if too_long(line, max_line_bytes):
        return Fault(f"longer than data.max_line_bytes={max_line_bytes}; cut the record, or raise the limit")
    if not line.isascii() and (bad := HALF.search(line)):  # left by decode(keep_going=True), or by an odd codec
        at = bad.start() + 1
        return Fault(f"holds bytes that are no text in this encoding, at: {excerpt(line, at)}", at)
    try:
        value = DECODER.decode(line)
    except json.JSONDecodeError as error:
        return Fault(f"not JSON: {error.msg}, at: {excerpt(line, error.pos + 1)}", error.pos + 1)
    except RefusedError as error:
        return Fault(f"{error}, in: {excerpt(line)}")
    except RecursionError:
        return Fault("nested too deeply to read; flatten the record")
    return as_row(value, line if "\\u" in line else "")


def too_long(text: str, max_bytes: int) -> bool:
    """Whether `text` takes more than `max_bytes` in UTF-8."""
    widest = 4  # bytes of a character in UTF-8, at most
    return len(text) * widest > max_bytes and len(text.encode("utf-8", "surrogatepass")) > max_bytes


def as_row(value: Any, suspect: str) -> Row | Fault:
    """`value` if it is an object of usable text; `suspect` is empty where the source holds no escape."""
    if isinstance(value, list):
        return Fault("an array; JSON Lines has one object a line. Put each object on its own line, or name it .json")
    if not isinstance(value, dict):
        return Fault(f'a bare {type(value).__name__}; a record is an object such as {{"text": ...}}')
    if suspect and (reason := unusable_text(value)):
        return Fault(f"{reason}, in: {excerpt(suspect)}")
    return value


def json_lines(lines: Iterable[str], max_line_bytes: int) -> Iterator[tuple[int, Row | Fault]]:
    """Rows of a `.jsonl` file with their line numbers from 1.  Blank lines are no records.

    Lines end at a line feed only: U+2028 and friends are legal inside JSON texts.
    """
    for number, line in enumerate(lines, start=1):
        if line and not line.isspace():
            yield number, parse_line(line, max_line_bytes)
