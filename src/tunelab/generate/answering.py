"""Answers for many records: windows of rows, sorted by length inside, each row answered or told its fault."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunelab.data.batching import cut, longest_first
from tunelab.data.examples import Example
from tunelab.errors import DataError
from tunelab.restore import Trained

WINDOW = 128  # rows that are answered, and saved, together

Answer = dict[str, Any]


def answers(
    trained: Trained, records: Sequence[Mapping[str, Any]], *, batch_tokens: int, start: int = 0
) -> Iterator[list[Answer]]:
    """The answers to records from `start` on, a window at a time, in their order.

    Args:
        trained: A run.
        records: What is asked; labels and answers in them are not looked at.
        batch_tokens: Most tokens of one forward pass, pads counted.
        start: Records before it are left out.

    Yields:
        One dict per record: `prediction` and what belongs to it; `prediction` None and an `error` where the record
        cannot be used.
    """
    for first in range(start, len(records), WINDOW):
        yield window(trained, records[first : first + WINDOW], batch_tokens)


def window(trained: Trained, records: Sequence[Mapping[str, Any]], batch_tokens: int) -> list[Answer]:
    """The answers to a few records."""
    found: list[Answer] = [{} for _ in records]
    asked: list[Example] = []
    for place, record in enumerate(records):
        try:
            asked.append(trained.task.question(record, place))
        except DataError as fault:
            found[place] = {"prediction": None, "error": str(fault)}
    lengths = [len(example.ids) for example in asked]
    order = longest_first(range(len(asked)), lengths)
    with trained.use():
        for micro in cut(order, lengths, micro_tokens=batch_tokens, flat=False):
            batch = [asked[index] for index in micro]
            for example, said in zip(batch, trained.task.answer(trained.model, batch), strict=True):
                found[example.row] = said
    return found
