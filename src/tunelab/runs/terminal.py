"""The terminal that this process prints to: its width, words wrapped to it, and lines that are replaced in place.

Loads neither torch nor rich.
"""

import itertools
import os
import re
import shutil
import sys
from collections.abc import Sequence
from typing import Any, ClassVar, TextIO, cast
from unicodedata import east_asian_width

DUMB_TERMINALS = ("dumb", "unknown")
VERBOSE_FLAGS, VERBOSE_VARIABLE = ("-v", "--verbose"), "TUNELAB_VERBOSE"
NARROWEST = 20  # columns; below that no word would fit
_WIDE = (
    "\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6"
    "\U00020000-\U0003fffd"
)
# no line begins with one of these
_CLOSING = "\u3001\u3002\uff0c\uff0e\uff1a\uff1b\uff1f\uff01\uff09\u300d\u300f\u3011\u300b\u3009\u2026\uff05"
# a word, or a single ideograph, with the blanks before it: lines may break before each
_PIECE = re.compile(rf"(\s*)([{_WIDE}][{_CLOSING}]*|[^\s{_WIDE}]+[{_CLOSING}]*)")


def is_verbose() -> bool:
    """Whether -v asks for every setting and every count."""
    return os.environ.get(VERBOSE_VARIABLE, "") not in ("", "0")


def is_terminal(stream: TextIO | None = None) -> bool:
    """Whether a stream, standard output by default, is a terminal that can move its cursor."""
    return (stream or sys.stdout).isatty() and os.environ.get("TERM") not in DUMB_TERMINALS


def has_colours(stream: TextIO | None = None) -> bool:
    """Whether text may be coloured: on a terminal, unless NO_COLOR is set."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def terminal_width(stream: TextIO | None = None) -> int | None:
    """Columns of the terminal that a stream writes to, standard output by default; None where there is none."""
    if not (stream or sys.stdout).isatty():
        return None
    return max(NARROWEST, terminal_size(stream).columns)


def terminal_size(stream: TextIO | None = None) -> os.terminal_size:
    """Columns and lines of a terminal: what it says itself, or COLUMNS and LINES where these are less.

    A shell may have exported them before the window was made narrower, and a harness may set nothing else.
    """
    said = shutil.get_terminal_size()
    try:
        real = os.get_terminal_size((stream or sys.stdout).fileno())
    except (OSError, ValueError):  # a stream without a terminal behind it, or a closed one
        return said
    return os.terminal_size(min(one or other, other) for one, other in zip(real, said, strict=True))


def text_width(text: str) -> int:
    """Columns that a text takes; ideographs take two."""
    return len(text) if text.isascii() else sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def line_breaks(text: str, width: int, indent: int = 0) -> list[int]:
    """The places of a line at which further lines begin, so that no word is cut.

    Args:
        text: One line.
        width: Columns of a line.
        indent: Columns by which all but the first are indented.

    Example:
        >>> line_breaks("one two three", 8)
        [8]
    """
    breaks, column = list[int](), 0
    for match in _PIECE.finditer(text):
        blanks, word = text_width(match[1]), text_width(match[2])
        if column > indent * bool(breaks) and column + blanks + word > width:
            breaks.append(match.start(2))
            column = indent + word
        else:
            column += blanks + word
    return breaks


def wrap_words(text: str, width: int | None, indent: int | None = None) -> str:
    """A text whose lines are broken between words; a longer word stays whole.

    Args:
        text: One or several lines.
        width: Columns of a line; None breaks nothing.
        indent: Columns by which continuations are indented; None takes two more than their line has.
    """
    if width is None:
        return text
    lines = []
    for line in text.split("\n"):
        own = len(line) - len(line.lstrip(" "))
        hang = min(own + 2 if indent is None else indent, width // 2)
        marks = [0, *line_breaks(line, width, hang), len(line)]
        parts = [line[begin:end].rstrip() for begin, end in itertools.pairwise(marks)]
        lines += [parts[0], *(" " * hang + part for part in parts[1:])]
    return "\n".join(lines)


def join_fields(fields: Sequence[str], width: int | None) -> list[str]:
    """Fields two blanks apart, on as many lines as they take; a line breaks between fields only.

    Example:
        >>> join_fields(["step 1/5", "loss 2.5", "lr 0.1"], 20)
        ['step 1/5  loss 2.5', 'lr 0.1']
    """
    lines: list[str] = []
    for field in fields:
        if lines and (width is None or text_width(lines[-1]) + 2 + text_width(field) <= width):
            lines[-1] += f"  {field}"
        else:
            lines.append(field)
    return lines


class LiveLines:
    """Lines at the end of the terminal that are replaced in place; whatever else is printed appears above them.

    While they stand, standard output and standard error take them away before they write.  No other thread draws them,
    so they cost nothing between two calls of `draw`.
    """

    current: ClassVar["LiveLines | None"] = None  # only one can stand at the end of a terminal

    def __init__(self) -> None:
        self._stream = sys.stdout
        self._rows = 0
        self._streams: tuple[TextIO, TextIO] | None = None
        self.mid_line = False  # whether what was printed last has not ended its line

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines in place of the last ones; each must fit the width of the terminal."""
        if self._streams is None:
            LiveLines.current = self
            self._stream = sys.stdout
            self._streams = sys.stdout, sys.stderr
            sys.stdout = cast(TextIO, _StreamAbove(sys.stdout, self))
            sys.stderr = cast(TextIO, _StreamAbove(sys.stderr, self))
        text = "\x1b[K\n".join(lines)
        self._stream.write("\n" * self.mid_line + f"{self._to_first_row()}{text}\x1b[J")
        self._stream.flush()
        self._rows, self.mid_line = len(lines), False

    def clear(self) -> None:
        """Take the lines away until the next `draw`."""
        if self._rows:
            self._stream.write(f"{self._to_first_row()}\x1b[J")
            self._stream.flush()
            self._rows = 0

    def leave(self) -> None:
        """Leave the lines where they are: the next ones stand below what was printed meanwhile, past our streams."""
        self._rows = 0

    def close(self) -> None:
        """Take the lines away for good, and give the streams back."""
        self.clear()
        if self._streams is not None:
            if isinstance(sys.stdout, _StreamAbove):  # a training in this process may write elsewhere by now
                sys.stdout = self._streams[0]
            if isinstance(sys.stderr, _StreamAbove):
                sys.stderr = self._streams[1]
        self._streams = LiveLines.current = None

    def _to_first_row(self) -> str:
        return "\r" + (f"\x1b[{self._rows - 1}A" if self._rows > 1 else "")


class _StreamAbove:
    """A text stream that takes the live lines away before it writes."""

    def __init__(self, stream: TextIO, live: LiveLines) -> None:
        self._stream, self._live = stream, live

    def write(self, text: str) -> int:
        self._live.clear()
        self._live.mid_line = bool(text) and not text.endswith("\n")
        return self._stream.write(text)

    def writelines(self, lines: Sequence[str]) -> None:
        self._live.clear()
        self._stream.writelines(lines)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
