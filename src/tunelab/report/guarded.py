"""A part of a report that cannot be told says so, and the others are told all the same."""

from collections.abc import Callable
from typing import TypeVar

from tunelab.report.blocks import Section, Words

F = TypeVar("F")
FAULTS = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError)


def guarded(title: str, part: Callable[[F], Section | list[Section]], facts: F) -> list[Section]:
    """A part's sections; where a file holds something else than it should, the words for that."""
    try:
        found = part(facts)
    except FAULTS as fault:
        words = f"This part cannot be told: a file holds what it should not ({type(fault).__name__}: {fault})."
        return [Section(title, [Words(words, "bad")])]
    return found if isinstance(found, list) else [found]
