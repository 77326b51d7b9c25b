"""What one model says of the rows of a split, in the batches and the precision of its own test pass."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tunelab.assemble import Prepared, make_data
from tunelab.data.examples import Example, Micro
from tunelab.data.prepare import Sources, Split, encode_split
from tunelab.models.document_attention import on_device
from tunelab.models.soft_prompt import prompt_ids, prompted
from tunelab.restore import Trained

Figures = NDArray[np.float64]


@dataclass(frozen=True)
class Outputs:
    """Of one model and one split.

    Attributes:
        logits: (N, C) float64, as the task gives them.
        targets: (N,) class indices, or (N, C) numbers.
        rows: (N,) index of each record within its split, rising.
    """

    logits: Figures
    targets: Tensor
    rows: Tensor


def encoded(trained: Trained, split: Split) -> Sequence[Example]:
    """The examples of a split as a model reads them."""
    found, _ = encode_split(split, trained.task)
    return prompted(list(found), prompt_ids(trained.model))


def micros(trained: Trained, split: Split, examples: Sequence[Example]) -> Iterator[Micro]:
    """The micro-batches of a test pass, on the model's device."""
    empty = Split()
    sources = Sources({"train": empty, "validation": empty, "test": split}, {}, [])
    prepared = Prepared(
        trained.settings, trained.task, sources, trained.tokenizer, {"test": examples}, {}, adapter=trained.adapter
    )
    for step in make_data(prepared).loader("test"):
        for micro in step.micros:
            yield on_device(micro, trained.model.device)


def outputs(trained: Trained, split: Split) -> Outputs:
    """The outputs of a model that gives one row of logits per record."""
    logits, targets, rows = list[Tensor](), list[Tensor](), list[Tensor]()
    with trained.use():
        for micro in micros(trained, split, encoded(trained, split)):
            real = micro.rows >= 0
            logits.append(trained.task.logits(trained.model, micro)[real].double().cpu())
            targets.append(micro.targets[real].cpu())
            rows.append(micro.rows[real].cpu())
    order = torch.cat(rows).argsort()
    return Outputs(torch.cat(logits)[order].numpy(), torch.cat(targets)[order], torch.cat(rows)[order])
