"""Batches: which rows an epoch takes of each source, which make one optimizer step, and how a step is cut into micro-
batches.

Pure: lists in, lists and tensors out.  Shape letters: B sequences, T tokens.
"""

import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from tunelab.data.examples import IGNORE, Example, MicroBatch
from tunelab.data.packing import pack_best_fit
from tunelab.errors import DataError
from tunelab.language.translation import translate


class BatchPlan(NamedTuple):
    """One step of one rank, before any tensor is made."""

    micro_batches: list[list[int]]  # examples of each micro-batch of this rank
    loss_weight: float  # what the step's loss is divided by: the sum over all ranks


def mix_seeds(*numbers: int) -> int:
    """One seed from several numbers, the same in every process."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=7).digest(), "big")


def shuffled_order(count: int, *, seed: int, epoch: int) -> "array[int]":
    """The order of an epoch: a function of seed and epoch, never of what was drawn before."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(mix_seeds(seed, epoch)))
    return array("q", order.numpy().tobytes())


def longest_first(indices: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """Sort by length, ties by index, so that neighbours need next to no padding."""
    return sorted(indices, key=lambda i: (-lengths[i], i))


def split_micro_batches(
    indices: Sequence[int], lengths: Sequence[int], *, micro_tokens: int, packed: bool, pass_cost: int | None = None
) -> list[list[int]]:
    """Cut indices into micro-batches of at most `micro_tokens` tokens.

    Args:
        indices: Examples, longest first.
        lengths: Tokens of every example.
        micro_tokens: Most tokens of one forward pass, pads counted; a longer example still gets a pass of its own.
        packed: Whether rows are packed (no pads) or padded to the longest.
        pass_cost: Pads that take as long as one pass more: where a shorter row would bring a pass above them, it opens
            another.  None fills every pass.

    Returns:
        Micro-batches, each with at least one example: packed ones by best fit, padded ones in order.
    """
    if packed:
        return pack_best_fit(indices, lengths, limit=micro_tokens)
    micro_batches: list[list[int]] = []
    pads = 0
    for index in indices:
        longest = lengths[micro_batches[-1][0]] if micro_batches else 0
        pads += longest - lengths[index]
        if (
            micro_batches
            and (len(micro_batches[-1]) + 1) * longest <= micro_tokens
            and (pass_cost is None or pads <= pass_cost)
        ):
            micro_batches[-1].append(index)
        else:
            micro_batches.append([index])
            pads = 0
    return micro_batches


def plan_batch(
    batch: Sequence[int],
    lengths: Sequence[int],
    loss_weights: Sequence[float],
    *,
    micro_tokens: int,
    packed: bool,
    rank: int = 0,
    world_size: int = 1,
    pass_cost: int | None = None,
) -> BatchPlan:
    """The share of one rank in a step, cut into micro-batches, with the loss weight of the whole step.

    Ranks take turns along the length-sorted rows, back and forth (0 1 1 0 0 1 ...), so that none is always
    given the longer one.  Nothing is padded or repeated: a rank may get no row at all.
    """
    mine = [
        index
        for place, index in enumerate(longest_first(batch, lengths))
        if (place % world_size if place // world_size % 2 == 0 else world_size - 1 - place % world_size) == rank
    ]
    micro_batches = split_micro_batches(mine, lengths, micro_tokens=micro_tokens, packed=packed, pass_cost=pass_cost)
    return BatchPlan(micro_batches, sum(loss_weights[i] for i in batch))


def shift_labels(labels: Sequence[int]) -> list[int]:
    """The target of each position: the label of the position after it.  The shift by one happens here alone."""
    return [*labels[1:], IGNORE]


def pad_examples(examples: Sequence[Example], *, pad: int) -> MicroBatch:
    """Lay causal examples out as right-padded rows: ids and targets (B, T)."""
    width = max(len(example.ids) for example in examples)
    ids, targets = torch.full((len(examples), width), pad), torch.full((len(examples), width), IGNORE)
    for place, example in enumerate(examples):
        ids[place, : len(example.ids)] = torch.tensor(example.ids)
        targets[place, : len(example.ids)] = torch.tensor(shift_labels(token_labels(example)))
    lengths, rows = lengths_and_rows(examples)
    return MicroBatch(ids, lengths, targets, rows, predicts=predicts_of(examples))


def pack_examples(examples: Sequence[Example]) -> MicroBatch:
    """Pack causal examples in one row: ids and targets (1, T), with positions and document starts."""
    ids = torch.tensor([[token for example in examples for token in example.ids]])
    targets = torch.tensor([[t for example in examples for t in shift_labels(token_labels(example))]])
    positions = torch.cat([torch.arange(len(example.ids)) for example in examples])[None]
    starts = torch.tensor([0, *(len(example.ids) for example in examples)]).cumsum(0)
    lengths, rows = lengths_and_rows(examples)
    return MicroBatch(ids, lengths, targets, rows, positions, starts, predicts=predicts_of(examples))


def pack_texts(examples: Sequence[Example]) -> MicroBatch:
    """Pack texts with one target each in one row: ids (1, T), with positions and starts of texts; targets (B, ...)."""
    lengths, rows = lengths_and_rows(examples)
    kind = torch.int64 if isinstance(examples[0].target, int) else torch.float32
    return MicroBatch(
        torch.tensor([[token for example in examples for token in example.ids]]),
        lengths,
        torch.tensor([example.target for example in examples], dtype=kind),
        rows,
        torch.cat([torch.arange(len(example.ids)) for example in examples])[None],
        torch.tensor([0, *lengths.tolist()]).cumsum(0),
    )


def split_pairs(examples: Sequence[Example]) -> list[Example]:
    """The sequences of pairs one by one: chosen, rejected, chosen, rejected, ..."""
    sequences = []
    for example in examples:
        labels = token_labels(example)
        for part in (slice(example.second_start), slice(example.second_start, None)):
            sequences.append(Example(example.ids[part], labels[part], example.loss_weight, example.row))
    return sequences


def lengths_and_rows(examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Tokens (B,) and record (B,) of each example."""
    return torch.tensor([len(e.ids) for e in examples]), torch.tensor([e.row for e in examples])


def predicts_of(examples: Sequence[Example]) -> Tensor | None:
    """From which sequences the record is predicted, (B,); None where from all."""
    return None if all(e.predicts for e in examples) else torch.tensor([e.predicts for e in examples])


def token_labels(example: Example) -> list[int]:
    """The token labels of a causal example."""
    if not isinstance(example.target, list):
        raise TypeError(f"a causal example has a label for each token, got {example.target!r}")
    return [int(label) for label in example.target]


class SourceRange(NamedTuple):
    """The examples of one source, which stand together in a split."""

    name: str
    start: int
    stop: int
    weight: float = 1.0

    @property
    def size(self) -> int:
        """Its examples."""
        return self.stop - self.start

    @property
    def rows_per_epoch(self) -> int:
        """The rows that an epoch sees: rows times weight, to the nearest whole number."""
        return int(self.size * self.weight + 0.5)


def source_ranges(sources: Sequence[str], weights: Mapping[str, float]) -> list[SourceRange]:
    """The range of the examples of each source; sources without an example are left out.

    Args:
        sources: The source of each example, those of one source together.
        weights: Of each source, by name.

    Raises:
        DataError: If a weight is so small that an epoch sees nothing of its source.
    """
    ranges: list[SourceRange] = []
    for index, name in enumerate(sources):
        if not ranges or ranges[-1].name != name:
            ranges.append(SourceRange(name, index, index, weights.get(name, 1.0)))
        ranges[-1] = ranges[-1]._replace(stop=index + 1)
    if empty := [part for part in ranges if not part.rows_per_epoch]:
        named = ", ".join(
            translate(
                "{weight:g} of the {size} [example|examples] of {name}", weight=p.weight, size=p.size, name=p.name
            )
            for p in empty
        )
        raise DataError(
            translate(
                "data.mix: {named} is less than half an example, so none is ever seen; raise the weight", named=named
            )
        )
    return ranges


def split_by_source(micro_batches: Sequence[Sequence[int]], ranges: Sequence[SourceRange]) -> list[list[int]]:
    """Micro-batches of examples, cut further so that none holds examples of two sources."""
    starts = [part.start for part in ranges]
    return [
        list(part)
        for micro in micro_batches
        for _, part in groupby(sorted(micro, key=lambda i: bisect_right(starts, i)), lambda i: bisect_right(starts, i))
    ]


def epoch_indices(ranges: Sequence[SourceRange], *, seed: int, epoch: int) -> "array[int]":
    """The examples of an epoch, before they are shuffled; with a weight of 1 throughout, each once and in order.

    A weight of 2.5 takes every row twice, and half of the rows, drawn afresh each epoch without repeats, once more.
    """
    indices = array("q")  # a tenth of a list
    for number, part in enumerate(ranges):
        whole, rest = divmod(part.rows_per_epoch, part.size)
        indices += array("q", range(part.start, part.stop)) * whole
        if rest:
            drawn = shuffled_order(part.size, seed=mix_seeds(seed, number, part.size), epoch=epoch)[:rest]
            indices += array("q", sorted(part.start + row for row in drawn))
    return indices
