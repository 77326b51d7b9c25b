"""Answers for many records: windows of rows, sorted by length inside, each row answered or told its fault."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tunelab.data.batching import cut, longest_first
from tunelab.data.examples import Example
from tunelab.errors import DataError
from tunelab.restore import Trained

WINDOW = 128  # rows that are answered, and saved, together

Answer = dict[str, Any]
Records = Sequence[Mapping[str, Any]]


def answers(say: Callable[[Records], list[Answer]], records: Records, start: int = 0) -> Iterator[list[Answer]]:
    """The answers to records from `start` on, a window at a time, in their order.

    Windows begin at the same rows wherever one starts, so that going on gives what a whole pass gives.

    Args:
        say: Gives the answers to the records of one window.
        records: What is asked; labels and answers in them are not looked at.
        start: Records before it are left out.

    Yields:
        One dict per record: `prediction` and what belongs to it; `prediction` None and an `error` where the record
        cannot be used.
    """
    for first in range(start // WINDOW * WINDOW, len(records), WINDOW):
        yield say(records[first : first + WINDOW])[max(0, start - first) :]


def window(trained: Trained, records: Records, batch_tokens: int, model: Any = None) -> list[Answer]:
    """The answers of a run to a few records.

    Args:
        trained: A run.
        records: What is asked.
        batch_tokens: Most tokens of one forward pass, pads counted.
        model: What answers in place of the run's own model.
    """
    asked, found = questions(trained, records)
    with trained.use():
        for batch in batches(asked, batch_tokens):
            speaker = trained.model if model is None else model
            for example, said in zip(batch, trained.task.answer(speaker, batch), strict=True):
                found[example.row] = said
    return found


def questions(trained: Trained, records: Records) -> tuple[list[Example], list[Answer]]:
    """Records as a run is asked them, and for each an answer: empty still, or one that tells why it cannot be used."""
    found: list[Answer] = [{} for _ in records]
    asked: list[Example] = []
    for place, record in enumerate(records):
        try:
            asked.append(trained.task.question(record, place))
        except DataError as fault:
            found[place] = {"prediction": None, "error": str(fault)}
    return asked, found


def batches(asked: Sequence[Example], batch_tokens: int) -> Iterator[list[Example]]:
    """Questions that one forward pass sees, longest first."""
    lengths = [len(example.ids) for example in asked]
    order = longest_first(range(len(asked)), lengths)
    for micro in cut(order, lengths, micro_tokens=batch_tokens, flat=False):
        yield [asked[index] for index in micro]
