"""Which sequences make one step, and how a step is cut into micro-batches.  Pure: lists in, lists and tensors out.

Shape letters: B sequences, T tokens.
"""

import hashlib
from array import array
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tunelab.data.examples import IGNORE, Example, Micro
from tunelab.data.packing import best_fit


class Plan(NamedTuple):
    """One step of one rank, before any tensor is made."""

    micros: list[list[int]]  # examples of each micro-batch of this rank
    units: float  # what the step's loss is divided by: the sum over all ranks


def mix(*numbers: int) -> int:
    """One seed from several numbers, the same in every process."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=7).digest(), "big")


def shuffled(count: int, *, seed: int, epoch: int) -> "array[int]":
    """The order of an epoch: a function of seed and epoch, never of what was drawn before."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(mix(seed, epoch)))
    return array("q", order.numpy().tobytes())


def longest_first(indices: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """Sort by length, ties by index, so that neighbours need next to no padding."""
    return sorted(indices, key=lambda i: (-lengths[i], i))


def cut(
    indices: Sequence[int], lengths: Sequence[int], *, micro_tokens: int, flat: bool, pass_cost: int | None = None
) -> list[list[int]]:
    """Cut indices into micro-batches of at most `micro_tokens` tokens.

    Args:
        indices: Examples, longest first.
        lengths: Tokens of every example.
        micro_tokens: Most tokens of one forward pass, pads counted; a longer example still gets a pass of its own.
        flat: Whether rows are laid end to end (no pads) or padded to the longest.
        pass_cost: Pads that take as long as one pass more: where a shorter row would bring a pass above them, it opens
            another.  None fills every pass.

    Returns:
        Micro-batches, each with at least one example: flat ones by best fit, padded ones in order.
    """
    if flat:
        return best_fit(indices, lengths, limit=micro_tokens)
    micros: list[list[int]] = []
    pads = 0
    for index in indices:
        longest = lengths[micros[-1][0]] if micros else 0
        pads += longest - lengths[index]
        if micros and (len(micros[-1]) + 1) * longest <= micro_tokens and (pass_cost is None or pads <= pass_cost):
            micros[-1].append(index)
        else:
            micros.append([index])
            pads = 0
    return micros


def plan_step(
    batch: Sequence[int],
    lengths: Sequence[int],
    units: Sequence[float],
    *,
    micro_tokens: int,
    flat: bool,
    rank: int = 0,
    world: int = 1,
    pass_cost: int | None = None,
) -> Plan:
    """The share of one rank in a step, cut into micro-batches, with the units of the whole step.

    Ranks take turns along the length-sorted rows, back and forth (0 1 1 0 0 1 ...), so that none is always
    given the longer one.  Nothing is padded or repeated: a rank may get no row at all.
    """
    mine = [
        index
        for place, index in enumerate(longest_first(batch, lengths))
        if (place % world if place // world % 2 == 0 else world - 1 - place % world) == rank
    ]
    micros = cut(mine, lengths, micro_tokens=micro_tokens, flat=flat, pass_cost=pass_cost)
    return Plan(micros, sum(units[i] for i in batch))


def next_targets(labels: Sequence[int]) -> list[int]:
    """The target of each position: the label of the position after it.  The shift by one happens here alone."""
    return [*labels[1:], IGNORE]


def pad_rows(examples: Sequence[Example], *, pad: int) -> Micro:
    """Lay causal examples out as right-padded rows: ids and targets (B, T)."""
    width = max(len(example.ids) for example in examples)
    ids, targets = torch.full((len(examples), width), pad), torch.full((len(examples), width), IGNORE)
    for place, example in enumerate(examples):
        ids[place, : len(example.ids)] = torch.tensor(example.ids)
        targets[place, : len(example.ids)] = torch.tensor(next_targets(labels_of(example)))
    lengths, rows = lengths_and_rows(examples)
    return Micro(ids, lengths, targets, rows)


def lay_flat(examples: Sequence[Example]) -> Micro:
    """Lay causal examples end to end in one row: ids and targets (1, T), with positions and bounds."""
    ids = torch.tensor([[token for example in examples for token in example.ids]])
    targets = torch.tensor([[t for example in examples for t in next_targets(labels_of(example))]])
    positions = torch.cat([torch.arange(len(example.ids)) for example in examples])[None]
    bounds = torch.tensor([0, *(len(example.ids) for example in examples)]).cumsum(0)
    lengths, rows = lengths_and_rows(examples)
    return Micro(ids, lengths, targets, rows, positions, bounds)


def pair_sides(examples: Sequence[Example]) -> list[Example]:
    """The sequences of pairs one by one: chosen, rejected, chosen, rejected, ..."""
    found = []
    for example in examples:
        labels = labels_of(example)
        for part in (slice(example.second), slice(example.second, None)):
            found.append(Example(example.ids[part], labels[part], example.units, example.row))
    return found


def lengths_and_rows(examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Tokens (B,) and record (B,) of each example."""
    return torch.tensor([len(e.ids) for e in examples]), torch.tensor([e.row for e in examples])


def labels_of(example: Example) -> list[int]:
    """The token labels of a causal example."""
    if not isinstance(example.target, list):
        raise TypeError(f"a causal example has a label for each token, got {example.target!r}")
    return [int(label) for label in example.target]
