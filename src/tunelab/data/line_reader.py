"""JSON Lines of a large file in UTF-8, read in parts on every core; what is read is what `json_reader` reads.

A line that is plainly sound is stored as it stands after one pass of the C parser; every other one goes to the strict
parser, which says what is wrong with it.
"""

import codecs
import json
from array import array
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tunelab.data.bad_rows import RowFault
from tunelab.data.json_reader import LONE_SURROGATE, STRICT_DECODER, parse_line
from tunelab.data.memory_map import ScratchDir
from tunelab.data.parallel import map_parts
from tunelab.data.text_store import TextBlock, TextWriter

PART_BYTES: Final = 2**22  # of the file that are read together
ANY_SPACE: Final = " \t\r\n"
_decoder: Final = json.JSONDecoder(
    parse_int=STRICT_DECODER.parse_int,
    parse_float=STRICT_DECODER.parse_float,
    parse_constant=STRICT_DECODER.parse_constant,
)
_scan: Final[Callable[[str, int], tuple[Any, int]]] = getattr(_decoder, "scan_once")  # noqa: B009  # unknown to typeshed


class LinesOfPart(NamedTuple):
    """What a part of a file holds.

    Attributes:
        rows: The JSON of its good lines.
        numbers: Their places among the lines of the part, from 0.
        bad: The places of bad lines, and what is wrong.
        lines: How many lines there are.
    """

    rows: TextBlock
    numbers: npt.NDArray[np.int32]
    bad: list[tuple[int, RowFault]]
    lines: int


class StoredLines(NamedTuple):
    """The lines of a file.

    Attributes:
        rows: The JSON of the good ones.
        numbers: Their numbers from 1.
        bad: The numbers of bad ones, and what is wrong.
    """

    rows: TextWriter
    numbers: "array[int]"
    bad: list[tuple[int, RowFault]]


def store_json_lines(path: Path, scratch: ScratchDir, max_line_bytes: int, *, keep_going: bool) -> StoredLines | None:
    """Store the rows of a file; None where it is not UTF-8, which a reader of the whole explains.

    Args:
        path: The file.
        scratch: Where the rows are kept.
        max_line_bytes: Longest record, in bytes of UTF-8.
        keep_going: Whether bytes that are no UTF-8 make their lines bad, not the file.
    """
    read = partial(read_part, path, max_line_bytes=max_line_bytes, keep_going=keep_going)
    stored, first = StoredLines(TextWriter(scratch), array("q"), []), 1
    for part in map_parts(read, part_borders(path)):
        if part is None:
            return None
        stored.rows.extend(part.rows)
        stored.numbers.frombytes((part.numbers.astype(np.int64) + first).tobytes())
        stored.bad.extend((first + place, fault) for place, fault in part.bad)
        first += part.lines
    return stored


def part_borders(path: Path) -> list[tuple[int, int]]:
    """First byte of each part, and one past its last; parts end where lines do."""
    size, borders = path.stat().st_size, [0]
    with path.open("rb") as file:
        while borders[-1] < size:
            file.seek(borders[-1] + PART_BYTES)
            file.readline()
            borders.append(min(file.tell(), size))
    return list(pairwise(borders))


def read_part(path: Path, part: tuple[int, int], *, max_line_bytes: int, keep_going: bool) -> LinesOfPart | None:
    """The lines of one part; None where it is not UTF-8."""
    with path.open("rb") as file:
        file.seek(part[0])
        raw = file.read(part[1] - part[0])
    if not part[0]:
        raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        lines = raw.decode("utf-8", "surrogateescape" if keep_going else "strict").split("\n")
    except UnicodeDecodeError:
        return None
    good: list[str] = []
    numbers: list[int] = []
    bad: list[tuple[int, RowFault]] = []
    for place, line in enumerate(lines):
        if not is_sound(line, max_line_bytes, decoded_strictly=not keep_going):
            if not line or line.isspace():
                continue
            outcome = parse_line(line, max_line_bytes)
            if isinstance(outcome, RowFault):
                bad.append((place, outcome))
                continue
        good.append(line.strip(ANY_SPACE))
        numbers.append(place)
    count = len(lines) - (lines[-1] == "")
    return LinesOfPart(TextBlock.of(good), np.array(numbers, np.int32), bad, count)


def is_sound(line: str, max_line_bytes: int, *, decoded_strictly: bool = True) -> bool:
    """Whether a line is plainly an object that nothing is lost of; where it is not, the strict parser decides.

    Each key of an object stands before a colon.  Where as many texts end right before a colon as the outermost object
    has keys, and no blank stands before any, no key stands twice and no object lies inside.
    """
    if len(line) * 4 > max_line_bytes or "\\u" in line:
        return False
    if not decoded_strictly and not line.isascii() and LONE_SURROGATE.search(line):
        return False
    try:
        value, end = _scan(line, 0)
    except (ValueError, StopIteration, RecursionError):
        return False
    blank = " :" in line or "\t:" in line or "\r:" in line
    whole = end == len(line) or not line[end:].strip(ANY_SPACE)
    return whole and type(value) is dict and not blank and line.count('":') == len(value)
