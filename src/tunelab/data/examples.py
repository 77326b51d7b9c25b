"""Example, MicroBatch and Batch: the plain values that travel from records to the model.

Shape letters: B sequences, T tokens, C classes or targets.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

IGNORE = -100  # the label of a token that carries no loss: prompt and padding


@dataclass(frozen=True, slots=True)
class Example:
    """One record, or one of the sequences that a record gives, ready for the model.

    Attributes:
        ids: Token ids, T of them, without padding.
        target: What is to be learned.  Causal models: T labels, equal to the ids or `IGNORE` (position t holds
            token t; the shift by one happens when rows are laid out).  Classification: the class index.
            Multi-label: 0 or 1 per class, C.  Regression: standardised numbers, C.
        loss_weight: What the loss of a step is divided by, summed over the step: supervised tokens after the shift,
            or the weight of the row (1 without class weights).
        row: Index of the record within its split.
        second_start: Where a pair's second sequence starts in ids and target; None for a single sequence.
        reference_logprobs: Log-probabilities of a pair's two answers before training.
        predicts: Whether the prediction for the record belongs to this sequence; of several, to the last alone.
    """

    ids: list[int]
    target: list[int] | list[float] | int
    loss_weight: float
    row: int
    second_start: int | None = None
    reference_logprobs: tuple[float, float] | None = None
    predicts: bool = True

    @property
    def max_sequence_length(self) -> int:
        """Tokens of the sequence; of the longer one of a pair."""
        return len(self.ids) if self.second_start is None else max(self.second_start, len(self.ids) - self.second_start)

    def padded_length(self, *, packed: bool) -> int:
        """Tokens this example takes up next to others no longer than itself: a padded pair is two equal rows."""
        return len(self.ids) if packed or self.second_start is None else 2 * self.max_sequence_length


class MicroBatch(NamedTuple):
    """The tensors of one forward pass: right-padded rows, or one packed row of documents."""

    ids: Tensor  # (B, T) int64; packed: (1, T)
    lengths: Tensor  # (B,) int64, real tokens of each sequence; packed: of each document
    targets: Tensor  # causal: (B, T) the token that follows each position, IGNORE where nothing is learned;
    #                  classification (B,); multi-label and regression (B, C) float
    row_indices: Tensor  # (B,) int64: the record behind each sequence; -1 for a filler that teaches nothing
    positions: Tensor | None = None  # (1, T), packed only: position inside the document
    document_starts: Tensor | None = None  # (documents + 1,), packed only: where each document starts
    reference_logprobs: Tensor | None = None  # (B, 2) float32, pairs only: log-probabilities before training; such a
    #                                  micro-batch holds 2B sequences: chosen, rejected, chosen, rejected, ...
    predicts: Tensor | None = None  # (B,) bool: whose record is predicted from this sequence; None where all are

    def predicted_rows(self) -> list[int]:
        """The records to be predicted from this micro-batch, each in one micro-batch only."""
        marks = [True] * len(self.row_indices) if self.predicts is None else self.predicts.tolist()
        return [row for row, mark in zip(self.row_indices.tolist(), marks, strict=True) if mark and row >= 0]


class Batch(NamedTuple):
    """One optimizer step of one rank (or one slice of an evaluation)."""

    micro_batches: list[MicroBatch]  # this rank's share, never empty
    loss_weight: float  # sum of `Example.loss_weight` of the whole step, over all ranks
