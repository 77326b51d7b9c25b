"""Some records of a split as the model will see them.  Pure: splits in, plain values out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from transformers import PreTrainedTokenizerBase

from tunelab.data.examples import Example
from tunelab.data.leaks import evenly
from tunelab.data.one_source import Split
from tunelab.data.pieces import Piece, sequences
from tunelab.data.preference_pairs import SIDES
from tunelab.tasks.base import Record, Task
from tunelab.tasks.classification import Classification
from tunelab.tasks.regression import Regression


@dataclass(frozen=True, slots=True)
class Shown:
    """One record for a reader.

    Attributes:
        title: Where it stands, and how many tokens it has.
        parts: Its sequences; two for a pair of answers.
        answer: Label or numbers, where the task learns such.
        names: What each of several sequences is; empty where there is one.
    """

    title: str
    parts: list[list[Piece]]
    answer: str
    names: tuple[str, ...] = ()


def choose(
    task: Task, split: Split, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, rows: int
) -> list[Shown]:
    """At most `rows` records, evenly spaced over the examples of a split."""
    found = []
    for place in evenly(len(examples), rows):
        example = examples[place]
        parts = sequences(example, tokenizer)
        trained = sum(len(piece.ids) for part in parts for piece in part if piece.trained)
        told = f", {trained:,} trained" if task.head == "causal" else ""
        title = f"{split.places[example.row]}: {len(example.ids):,} tokens{told}"
        names = SIDES if example.second is not None else ()
        found.append(Shown(title, parts, answer(task, split.rows[example.row]), names))
    return found


def answer(task: Task, record: Record) -> str:
    """What is to be learned of a record that has one answer; empty where tokens are."""
    if isinstance(task, Classification):
        return f"{task.label}: {', '.join(task.names(record)) or 'none'}"
    if isinstance(task, Regression):
        pairs = zip(task.targets, task.numbers(record), strict=True)
        return ", ".join(f"{name}: {value:g}" for name, value in pairs)
    return ""


def marked(part: Sequence[Piece]) -> list[tuple[str, str]]:
    """Stretches of text with their kind, "trained", "masked", "special" or "trained special".

    What is trained stands between ⟦ and ⟧, which no text of the data can hold (see `pieces.visible`).
    """
    found: list[tuple[str, str]] = []
    for trained, stretch in groupby(part, key=lambda piece: bool(piece.trained)):
        kind = "trained" if trained else "masked"
        found += [("⟦", kind)] if trained else []
        found += [(piece.text, f"{kind} special" if piece.special else kind) for piece in stretch]
        found += [("⟧", kind)] if trained else []
    return found
