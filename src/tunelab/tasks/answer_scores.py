"""Scores of generated answers, kept as sums: no text stays in memory, and ranks add up exactly."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from transformers import PreTrainedModel
from typing_extensions import override

from tunelab.data.examples import Step
from tunelab.tasks.answer_tally import Tally
from tunelab.tasks.base import Record, Task


class Sums(Metric):
    """A vector in double, added up over ranks in one exchange."""

    full_state_update = False
    sums: Tensor

    def __init__(self, width: int) -> None:
        """Start at zero."""
        super().__init__()
        self.add_state("sums", default=torch.zeros(width, dtype=torch.float64), dist_reduce_fx="sum")

    @override
    def update(self, vector: Tensor) -> None:
        self.sums += vector.to(self.sums)

    @override
    def compute(self) -> Tensor:
        return self.sums


class AnswerCheck(nn.Module):
    """Has a fixed sample of rows answered at every validation, and keeps sums of the scores.

    Args:
        task: Asks, and judges what is answered.
        tally: What the judged answers add up to.
        records: The split.
        rows: Which of its records are answered.
    """

    def __init__(self, task: Task, tally: Tally, records: Sequence[Record], rows: Collection[int]) -> None:
        super().__init__()
        self.task, self.tally, self.records, self.rows = task, tally, records, rows
        self.sums = Sums(tally.width)

    def update(self, model: PreTrainedModel, step: Step) -> None:
        """Have those rows of a step answered that belong to the sample."""
        rows = [row for micro in step.micros for row in micro.rows.tolist() if row in self.rows]
        judged = self.task.answered(model, rows, [self.records[row] for row in rows]) if rows else []
        self.sums.update(torch.tensor(self.tally.total(judged), dtype=torch.float64))

    def compute(self) -> dict[str, float]:
        """Every score by its bare name, over all ranks."""
        return self.tally.scores(self.sums.compute().tolist())

    def reset(self) -> None:
        """Forget everything."""
        self.sums.reset()
