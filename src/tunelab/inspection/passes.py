"""How much memory the heaviest passes of a run take, measured on the very model and micro-batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tunelab.data.examples import Micro
from tunelab.data.loader import StepLoader
from tunelab.inspection.peak import peak_bytes
from tunelab.inspection.workload import Workload
from tunelab.models.document_attention import on_device
from tunelab.module import FineTuner

PART = 8  # a first look takes one row of so many


@dataclass(frozen=True)
class Passes:
    """Bytes that a forward and a backward pass take at most, gradients among them, weights not.

    Attributes:
        first: Of the heaviest pass, where no other went before it in its step.
        later: Of the heaviest one that did, so that gradients stand beside it; None where every step is one pass.
        share: How much of the micro-batches was run; below 1 the rest would not have fit, and the bytes are scaled up.
    """

    first: int
    later: int | None
    share: float = 1.0


def measure(module: FineTuner, loader: StepLoader, work: Workload, gradients: int, room: int | None) -> Passes:
    """Run the heaviest micro-batches forward and backward; weights stay, gradients are dropped.

    Args:
        module: Its model stands where it trains.
        loader: Knows the rows.
        work: Knows which are heaviest.
        gradients: Bytes of all gradients.
        room: Bytes there are for it; where a part of a micro-batch tells that the whole takes more, that is not tried.
    """
    share, first = 1.0, 0
    for rows in work.heaviest:
        few = rows[: max(1, len(rows) // PART)]
        scale = sum(loader.lengths[row] for row in rows) / sum(loader.lengths[row] for row in few)
        taken = peak(module, [lay(loader, few)])
        if room is not None and taken * scale > room:
            share, first = min(share, 1 / scale), max(first, round(taken * scale))
        else:
            first = max(first, taken if len(few) == len(rows) else peak(module, [lay(loader, rows)]))
    if not work.later:
        return Passes(first, None, share)
    if share < 1:
        return Passes(first, first + gradients, share)
    return Passes(first, max(peak(module, [lay(loader, rows)], after=lay(loader, rows[:1])) for rows in work.later))


def lay(loader: StepLoader, rows: Sequence[int]) -> Micro:
    """A micro-batch of these rows."""
    return loader.collate([loader.examples[row] for row in rows])


def peak(module: FineTuner, micros: Sequence[Micro], after: Micro | None = None) -> int:
    """The most bytes that passes take; with `after`, beside the gradients that its pass has left, which count."""
    model = module.model

    def run(micro: Micro) -> None:
        torch.clear_autocast_cache()  # each step begins without copies of the weights in another precision
        _logits, loss = module.regularizer.loss(on_device(micro, model.device))  # both stand to the end, as in training
        loss.backward()

    try:
        left = 0
        if after is not None:
            run(after)
            left = sum(weight.grad.nbytes for weight in model.parameters() if weight.grad is not None)
        return left + peak_bytes(lambda: list(map(run, micros)), model.device)
    finally:
        model.zero_grad(set_to_none=True)
        torch.clear_autocast_cache()
