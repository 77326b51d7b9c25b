"""Micro-batches and tasks for tests of methods that act in a forward pass."""

import torch

from tunelab.data.batching import pack_examples, pad_examples
from tunelab.data.examples import Example, MicroBatch
from tunelab.tasks.instruction import Instruction

LENGTHS = (9, 4, 7, 2)


def micro(*, packed: bool = False, lengths: tuple[int, ...] = LENGTHS) -> MicroBatch:
    """Uneven rows of random tokens, all of them learned."""
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, 250, (length,), generator=draw).tolist() for length in lengths]
    examples = [Example(ids, list(ids), len(ids) - 1, row) for row, ids in enumerate(rows)]
    return pack_examples(examples) if packed else pad_examples(examples, pad=0)


def instruction(*, packed: bool = False, label_smoothing: float = 0.0) -> Instruction:
    """The task that these rows belong to."""
    task = Instruction(label_smoothing=label_smoothing)
    task.packed = packed
    return task
