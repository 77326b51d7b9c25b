"""Example, MicroBatch and Batch: the plain values that travel from records to the model.

Shape letters: B sequences, T tokens, C classes or targets.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

IGNORE = -100  # the label of a token that carries no loss: prompt and padding


@dataclass(frozen=True, slots=True)
class Example:
    """One record, ready for the model.

    Attributes:
        ids: Token ids, T of them, without padding.
        target: What is to be learned.  Causal models: T labels, equal to the ids or `IGNORE` (position t holds
            token t; the shift by one happens when rows are laid out).  Classification: the class index.
            Multi-label: 0 or 1 per class, C.  Regression: standardised numbers, C.
        units: What the loss of a step is divided by, summed over the step: supervised tokens after the shift,
            or the weight of the row (1 without class weights).
        row: Index of the record within its split.
        second: Where a pair's second sequence starts in ids and target; None for a single sequence.
        reference: Log-probabilities of a pair's two answers before training.
    """

    ids: list[int]
    target: list[int] | list[float] | int
    units: float
    row: int
    second: int | None = None
    reference: tuple[float, float] | None = None

    @property
    def longest(self) -> int:
        """Tokens of the sequence; of the longer one of a pair."""
        return len(self.ids) if self.second is None else max(self.second, len(self.ids) - self.second)

    def laid(self, *, flat: bool) -> int:
        """Tokens this example takes up next to others no longer than itself: a padded pair is two equal rows."""
        return len(self.ids) if flat or self.second is None else 2 * self.longest


class MicroBatch(NamedTuple):
    """What one forward pass sees: right-padded rows, or (flat) one row of documents laid end to end."""

    ids: Tensor  # (B, T) int64; flat: (1, T)
    lengths: Tensor  # (B,) int64, real tokens of each sequence; flat: of each document
    targets: Tensor  # causal: (B, T) the token that follows each position, IGNORE where nothing is learned;
    #                  classification (B,); multi-label and regression (B, C) float
    rows: Tensor  # (B,) int64: the record behind each sequence; -1 for a filler that teaches nothing
    positions: Tensor | None = None  # (1, T), flat only: position inside the document
    bounds: Tensor | None = None  # (documents + 1,), flat only: where each document starts
    reference: Tensor | None = None  # (B, 2) float32, pairs only: log-probabilities before training; such a
    #                                  micro-batch holds 2B sequences: chosen, rejected, chosen, rejected, ...


class Batch(NamedTuple):
    """One optimizer step of one rank (or one slice of an evaluation)."""

    micros: list[MicroBatch]  # this rank's share, never empty
    units: float  # sum of `Example.units` of the whole step, over all ranks
