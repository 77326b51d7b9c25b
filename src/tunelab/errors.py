"""Errors that a user can cause or meet.  Each message says what is wrong, the value, why it matters and what to try."""

import re
from collections.abc import Sequence

from tunelab.language.translation import translate

# What moves a cursor, colours, turns round or cannot be written at all: control characters, the marks that reverse the
# direction of text, separators of lines that are no line feed, and halves of surrogate pairs.
_UNPRINTABLE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible_text(text: str) -> str:
    """A text in which nothing acts on the terminal: the escape character of a file is spelt out."""
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text.replace("\r\n", "\n"))


def first_line(fault: BaseException) -> str:
    """The first line of an error's text; its type where it says nothing."""
    return (str(fault).strip() or type(fault).__name__).splitlines()[0]


class WarningNote(str):
    """A note on a run that needs attention; the terminal prints it as a warning."""


class TuneLabError(Exception):
    """An error that is printed as one message, without a traceback.

    Attributes:
        exit_status: What the process returns to the shell.
    """

    exit_status = 1


class ConfigError(TuneLabError):
    """The settings cannot be used."""

    exit_status = 2

    @classmethod
    def listing(cls, faults: Sequence[str]) -> "ConfigError":
        """One error that names every fault at once, a line each."""
        return cls(translate("cannot run this:") + "\n" + "\n".join(f"  - {fault}" for fault in faults))


class DataError(TuneLabError):
    """The data cannot be used; the message names file and line where there is one."""

    exit_status = 2

    @classmethod
    def listing(cls, faults: Sequence[str]) -> "DataError":
        """One error that names every fault at once, a line each."""
        return cls(translate("cannot use these data:") + "\n" + "\n".join(f"  - {fault}" for fault in faults))


class Pruned(TuneLabError):
    """The search stopped this trial early, because others are better; that is no failure."""

    exit_status = 0


class Diverged(TuneLabError):
    """The loss or a weight became NaN or Inf; such a model is never kept as best."""
