"""Rows laid out for the model: padding is a matter of length, and no document learns from its neighbour."""

import pytest
import torch

from tunelab.data.batching import pack_examples, pad_examples, shift_labels
from tunelab.data.examples import IGNORE, Example
from tunelab.data.truncation import count_supervised

END = 2  # ends a text, and is the pad token too, as in GPT-2
TEXTS = [[5, 6, END, 7, END], [8, END], [9, 9, 9, END]]


def examples(*, masked: int = 0) -> list[Example]:
    """Plain texts, or answers after `masked` prompt tokens; an end token also stands in the middle of one."""
    found = []
    for row, ids in enumerate(TEXTS):
        labels = [IGNORE] * masked + ids[masked:]
        found.append(Example(ids, labels, count_supervised(labels), row))
    return found


def test_padding_is_told_by_length_and_never_by_the_pad_token() -> None:
    # Given texts that hold the pad token, in the middle and at the end
    micro = pad_examples(examples(), pad=END)

    # Then each of them is still learned, and nothing of the padding
    for row, ids in enumerate(TEXTS):
        assert micro.targets[row].tolist() == [*ids[1:], *[IGNORE] * (5 - len(ids) + 1)]
    assert micro.lengths.tolist() == [5, 2, 4]


def test_the_end_of_a_document_never_learns_the_begin_of_the_next() -> None:
    micro = pack_examples(examples())

    assert micro.document_starts is not None
    lasts = micro.document_starts[1:] - 1
    assert micro.ids[0, lasts].tolist() == [END, END, END]
    assert micro.targets[0, lasts].tolist() == [IGNORE] * 3
    assert micro.positions is not None
    assert micro.positions[0].tolist() == [0, 1, 2, 3, 4, 0, 1, 0, 1, 2, 3]


@pytest.mark.parametrize("masked", [0, 1, 2])
def test_the_label_at_position_0_is_in_neither_the_loss_nor_its_divisor(masked: int) -> None:
    # Given labels on the first token of every text, which nothing precedes
    rows = examples(masked=masked)

    # Then the units of a step are the targets that reach the loss, in either layout
    for micro in (pad_examples(rows, pad=0), pack_examples(rows)):
        assert int((micro.targets != IGNORE).sum()) == sum(example.loss_weight for example in rows)
    assert sum(example.loss_weight for example in rows) == sum(len(ids) - max(masked, 1) for ids in TEXTS)


def test_both_layouts_teach_the_same_pairs_of_token_and_target() -> None:
    def pairs(ids: torch.Tensor, targets: torch.Tensor) -> list[tuple[int, int]]:
        kept = targets != IGNORE
        return sorted(zip(ids[kept].tolist(), targets[kept].tolist(), strict=True))

    padded, packed = pad_examples(examples(masked=1), pad=0), pack_examples(examples(masked=1))

    assert pairs(padded.ids, padded.targets) == pairs(packed.ids, packed.targets)
    assert shift_labels([IGNORE, 4, 5]) == [4, 5, IGNORE]
