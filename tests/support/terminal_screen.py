"""Commands in a pseudo-terminal, and the screen that their output makes: enough of a terminal for what we print."""

import fcntl
import io
import os
import pty
import re
import select
import struct
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO, cast

import pytest

from tunelab.runs.terminal import text_width

CONTROL = re.compile(r"\x1b\[(\d*)(?:;\d+)*([A-Za-z])|[\r\n]|[^\x1b\r\n]+|\x1b")


class Screen:
    """The rows of a terminal of some width, scrolled ones included.

    Attributes:
        rows: Every row so far; a row that grew wider than the terminal goes on in the next.
        overflows: How often a line was wider than the terminal, so that a word may have been cut.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.rows, self.row, self.column, self.overflows = [""], 0, 0, 0

    def feed(self, text: str) -> None:
        """Act on output: text, line feeds, cursor up, erase to the end of line or screen; colours change nothing."""
        for match in CONTROL.finditer(text):
            piece, count, order = match[0], match[1], match[2]
            if piece == "\r":
                self.column = 0
            elif piece == "\n":
                self._next_row()
            elif order == "A":
                self.row = max(0, self.row - int(count or 1))
            elif order == "K":
                self.rows[self.row] = self.rows[self.row][: self.column]
            elif order == "J":
                self.rows[self.row] = self.rows[self.row][: self.column]
                del self.rows[self.row + 1 :]
            elif order is None and piece != "\x1b":
                self._write(piece)

    def _next_row(self) -> None:
        self.row, self.column = self.row + 1, 0
        if self.row == len(self.rows):
            self.rows.append("")

    def _write(self, text: str) -> None:
        for letter in text:
            if self.column + text_width(letter) > self.width:
                self.overflows += 1
                self._next_row()
            line = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = line[: self.column] + letter + line[self.column + 1 :]
            self.column += 1


class FakeTerminal(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        return True


def take_terminal(monkeypatch: pytest.MonkeyPatch, width: int = 60) -> FakeTerminal:
    """Standard output and error of a test as one terminal; call it in the test, as pytest sets them between phases."""
    stream = FakeTerminal()
    for name, value in (("TERM", "xterm"), ("COLUMNS", str(width))):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", cast(TextIO, stream))
    monkeypatch.setattr(sys, "stderr", cast(TextIO, stream))
    return stream


def run_in_terminal(
    command: Sequence[str],
    folder: Path,
    *,
    width: int,
    variables: Mapping[str, str] | None = None,
    seconds: float = 120,
) -> tuple[int, list[str]]:
    """The exit status of a command in a pseudo-terminal, and its output in the pieces in which it came."""
    pid, handle = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.environ.update({"TERM": "xterm-256color", **(variables or {})})
        os.execvp(command[0], list(command))
    fcntl.ioctl(handle, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    pieces, end = list[str](), time.monotonic() + seconds
    while time.monotonic() < end:
        ready, _, _ = select.select([handle], [], [], 0.2)
        if ready:
            try:
                data = os.read(handle, 65536)
            except OSError:  # it has ended
                break
            if not data:
                break
            pieces.append(data.decode(errors="replace"))
    else:
        os.kill(pid, 9)
    os.close(handle)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), pieces
