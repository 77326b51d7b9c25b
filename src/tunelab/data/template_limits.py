"""Bounds on what a chat template may take: time, memory, and the length of a text that one step makes.

A template comes with a model, from anybody.  It can reach no file and no attribute that it should not, as transformers
renders it in Jinja's sandbox; but nested loops or a text times a billion would take hours or all memory.
"""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any, Final

from jinja2 import TemplateRuntimeError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers.utils import chat_template_utils
from typing_extensions import override

MAX_SECONDS: Final = 5.0  # of work of this process; a conversation takes less than a thousandth
MAX_CHARACTERS: Final = 2**24  # of a text or items of a list that one step makes
MAX_NUMBER: Final = 10**6  # that a template may pass to a function, such as the width of a column
MAX_BYTES: Final = 2**30  # by which the process may grow while it renders
TICK_SECONDS: Final = 0.05  # between two looks at time and memory
WIDE_FORMAT: Final = re.compile(r"\d{7,}")
GROWING_FILTERS: Final = ("center", "format", "indent", "join", "replace", "wordwrap", "batch", "slice")


class TemplateTooCostly(TemplateRuntimeError):
    """A template takes more time or memory than any conversation needs."""


def check_size(value: object) -> None:
    """Check what a step has made.

    Raises:
        TemplateTooCostly: If it is longer than any conversation.
    """
    if isinstance(value, str | bytes | list | tuple) and len(value) > MAX_CHARACTERS:
        raise TemplateTooCostly(f"its text has a length of {len(value):,}")


def check_arguments(arguments: tuple[object, ...]) -> None:
    """Check what a step is to make something of, before it does.

    Raises:
        TemplateTooCostly: If a number among it is a width or a count that no text needs.
    """
    for value in arguments:
        if isinstance(value, int) and abs(value) > MAX_NUMBER:
            raise TemplateTooCostly("it asks for more than a million of something")


def bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with its arguments and its result checked."""

    @wraps(function)  # Jinja's marks on it too
    def checked(*arguments: Any, **named: Any) -> Any:
        check_arguments((*arguments, *named.values()))
        texts = [value for value in arguments if isinstance(value, str)]  # the context of Jinja may stand before them
        if texts:
            check_method(function.__name__, texts[0], texts[1:])
        value = function(*arguments, **named)
        check_size(value)
        return value

    return checked


def check_method(name: str, text: str, arguments: Sequence[object]) -> None:
    """Check what a method or filter is to make of a text, before it does.

    Raises:
        TemplateTooCostly: If it would be longer than any conversation.
    """
    if "format" in name and WIDE_FORMAT.search(text):
        raise TemplateTooCostly("it asks for a column of more than a million characters")
    if "replace" in name and len(arguments) > 1:
        old, new = str(arguments[0]), str(arguments[1])
        if text.count(old) * len(new) > MAX_CHARACTERS:
            raise TemplateTooCostly("it replaces a character by a text too often")
    parts = arguments[0] if arguments and isinstance(arguments[0], list | tuple | str) else ()
    if name == "join" and len(text) * len(parts) > MAX_CHARACTERS:
        raise TemplateTooCostly("it joins too many parts by too long a text")


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which no single step makes more than a conversation can be."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.filters |= {name: bounded(self.filters[name]) for name in GROWING_FILTERS}

    @override
    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        for many, times in ((left, right), (right, left)):
            repeats = operator == "*" and isinstance(many, str | list | tuple) and isinstance(times, int)
            if repeats and len(many) * times > MAX_CHARACTERS:
                raise TemplateTooCostly(f"it repeats a text {times:,} times")
        powers = operator == "**" and isinstance(left, int) and isinstance(right, int)
        if powers and left.bit_length() * abs(right) > 4096:
            raise TemplateTooCostly("it asks for a number of more than a thousand digits")
        if operator == "%" and isinstance(left, str) and WIDE_FORMAT.search(left):
            raise TemplateTooCostly("it asks for a column of more than a million characters")
        value = super().call_binop(context, operator, left, right)
        check_size(value)
        return value

    @override
    def call(self, context: Context, function: Any, /, *arguments: Any, **named: Any) -> Any:
        check_arguments((*arguments, *named.values()))
        method = getattr(function, "__wrapped__", function)  # Jinja wraps the method `format`
        text = getattr(method, "__self__", None)
        if isinstance(text, str):
            check_method(getattr(method, "__name__", ""), text, arguments)
        value = super().call(context, function, *arguments, **named)
        check_size(value)
        return value


class _Watch:
    """What is being rendered now: until when, and up to which size of the process."""

    deadline: float | None = None
    bytes: int = 0


def process_bytes() -> int:
    """Resident bytes of this process; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def look(number: int, frame: FrameType | None) -> None:
    """Interrupt a rendering that has taken too much."""
    if _Watch.deadline is None:
        return
    _Watch.bytes = _Watch.bytes or process_bytes()
    if time.process_time() > _Watch.deadline:
        raise TemplateTooCostly(f"it takes more than {MAX_SECONDS:.0f} seconds")
    if process_bytes() - _Watch.bytes > MAX_BYTES:
        raise TemplateTooCostly(f"it takes more than {MAX_BYTES / 2**30:.0f} GB of memory")


@contextmanager
def limited_rendering() -> Iterator[None]:
    """Within it time and memory are watched, in the main thread of a system with timers; steps are checked anyway.

    Raises:
        TemplateTooCostly: Where a template has taken too much.
    """
    if threading.current_thread() is not threading.main_thread() or _Watch.deadline is not None:
        yield
        return
    if signal.getsignal(signal.SIGVTALRM) is not look:
        signal.signal(signal.SIGVTALRM, look)
    _Watch.deadline, _Watch.bytes = time.process_time() + MAX_SECONDS, 0
    signal.setitimer(signal.ITIMER_VIRTUAL, TICK_SECONDS, TICK_SECONDS)
    try:
        yield
    finally:
        _Watch.deadline = None
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def bound_templates() -> None:
    """Make transformers render every chat template of this process within these bounds."""
    setattr(chat_template_utils, "ImmutableSandboxedEnvironment", BoundedEnvironment)  # noqa: B010  # a name it imports
    getattr(chat_template_utils, "_compile_jinja_template").cache_clear()  # noqa: B009  # private
