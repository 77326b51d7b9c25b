"""A fixed sample of training rows, scored as validation rows are: what the generalisation gap is measured against."""

from collections.abc import Callable, Mapping, Sequence

from torch import nn
from transformers import PreTrainedModel

from tunelab.data.examples import Example, Step
from tunelab.data.leaks import evenly
from tunelab.data.loader import StepLoader
from tunelab.data.views import pick
from tunelab.settings import Run
from tunelab.tasks.base import Task


class TrainSample(nn.Module):
    """The plain loss of some training rows, at the weights that validation sees, without dropout or any other noise.

    The loss that training logs is none to compare with: it has noise, penalties and smoothing in it, and is the mean
    over weights that have moved on since.

    Args:
        task: Knows the loss.
        examples: The sample.
        batch_size: Rows scored at once, over all ranks; no loss depends on it.
        micro_tokens: Most tokens of one forward pass on one rank.
        flat: Whether the model takes rows laid end to end.
    """

    def __init__(
        self, task: Task, examples: Sequence[Example], *, batch_size: int, micro_tokens: int, flat: bool
    ) -> None:
        super().__init__()
        self.task, self.examples, self.scores = task, examples, task.scores()
        self.batch_size, self.micro_tokens, self.flat = batch_size, micro_tokens, flat

    def loss(self, model: PreTrainedModel, place: Callable[[Step], Step], rank: int, world: int) -> float:
        """Mean over all ranks; every rank must ask.

        Args:
            model: In evaluation mode.
            place: Moves a step to where the model is.
            rank: This process among the `world`.
            world: Processes that share the rows.
        """
        loader = StepLoader(
            self.examples,
            collate=self.task.collate,
            filler=self.task.filler(),
            batch_size=self.batch_size,
            micro_tokens=self.micro_tokens,
            flat=self.flat,
            shuffle=False,
            rank=rank,
            world=world,
        )
        for step in loader:
            for micro in place(step).micros:
                self.scores.update(self.task.logits(model, micro), micro)
        found = self.scores.compute()["loss"]
        self.scores.reset()
        return found


def train_sample(
    settings: Run, task: Task, examples: Mapping[str, Sequence[Example]], *, flat: bool
) -> TrainSample | None:
    """As many training rows as there are validation rows, at most `callbacks.gap_rows`, evenly spaced; or None."""
    rows = min(int(settings.callbacks["gap_rows"]), len(examples["validation"]))
    if not rows:
        return None
    return TrainSample(
        task,
        pick(examples["train"], evenly(len(examples["train"]), rows)),
        batch_size=int(settings.eval["batch_size"]),
        micro_tokens=settings.micro_tokens,
        flat=flat,
    )
