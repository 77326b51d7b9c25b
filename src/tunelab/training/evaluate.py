"""Evaluation: one loop over micro-batches serves validation, the test pass, `tunelab evaluate` and ensembles.

`evaluate` runs the model and hands the logits of each micro-batch to observers: running scores, predictions, outputs.

Shape letters: N rows, C classes or targets.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunelab.analysis.row_scores import RowScore
from tunelab.config.schema import RunConfig
from tunelab.data.examples import Batch, Example, MicroBatch
from tunelab.data.lazy_sequences import evenly_spaced, select_items
from tunelab.data.loader import BatchLoader
from tunelab.data.protocols import Record
from tunelab.models.sharding import is_sharded, passes_in_step
from tunelab.tasks.base import Task
from tunelab.tasks.instruction import Instruction
from tunelab.tasks.metrics.answer_metrics import PromptedRows
from tunelab.tasks.metrics.own_metrics import answer_metric_scores


class LogitsObserver(Protocol):
    """Takes in the logits of each micro-batch of an evaluation: running scores, collected predictions or outputs."""

    def update(self, logits: Tensor, micro: MicroBatch) -> None:
        """Take in the logits of one micro-batch, as `Task.logits` gives them."""


def evaluate(
    micro_batches: Iterable[MicroBatch], compute_logits: Callable[[MicroBatch], Tensor], *observers: LogitsObserver
) -> None:
    """Compute the logits of every micro-batch, and hand them to every observer.

    Args:
        micro_batches: On the model's device.
        compute_logits: One forward pass of a model, or of several as one.
        observers: In the order in which they get the logits.
    """
    for micro in micro_batches:
        logits = compute_logits(micro)
        for observer in observers:
            observer.update(logits, micro)


def evaluate_task(
    micro_batches: Iterable[MicroBatch], task: Task, model: PreTrainedModel, *observers: LogitsObserver
) -> None:
    """The same for a task and its model, whose logits come part by part where they are large."""
    for micro in micro_batches:
        for logits, part in task.logit_parts(model, micro):
            for observer in observers:
                observer.update(logits, part)


class PredictionCollector:
    """Collects the lines of predictions.jsonl.

    Args:
        task: Makes predictions of logits, or generates them.
        model: What generates them.
        records: Of the split.
        generated_rows: The rows that are answered by generation; None predicts every row from its logits.

    Attributes:
        predictions: One dict per row, in the order of evaluation.
    """

    def __init__(
        self,
        task: Task,
        model: PreTrainedModel,
        records: Sequence[Record],
        generated_rows: Collection[int] | None = None,
    ) -> None:
        self.task, self.model, self.records, self.generated_rows = task, model, records, generated_rows
        self.prompted = PromptedRows(task, records)
        own = type(task).predictions is not Instruction.predictions  # else they are answers, which need no logits
        self.uses_logits = generated_rows is None and own
        self.predictions: list[dict[str, Any]] = []

    def update(self, logits: Tensor, micro: MicroBatch) -> None:
        """Predict the rows of a micro-batch, or take them in to be answered together."""
        generated = self.generated_rows
        rows = [row for row in micro.predicted_rows() if generated is None or row in generated]
        if not self.uses_logits:
            self.predictions += self.prompted.add(self.model, rows)
            return
        with passes_in_step(self.model):
            if rows:
                records = [self.records[row] for row in rows]
                self.predictions += self.task.predictions(self.model, micro, logits, records)

    def finish(self) -> None:
        """Have the rows answered that still wait, once all micro-batches are there."""
        self.predictions += self.prompted.answer(self.model)


@dataclass(frozen=True)
class ModelOutputs:
    """The outputs of one model on one split.

    Attributes:
        logits: (N, C) float64, as the task gives them.
        targets: (N,) class indices, or (N, C) numbers.
        rows: (N,) index of each record within its split, rising.
    """

    logits: Tensor
    targets: Tensor
    rows: Tensor


class OutputCollector:
    """Collects the outputs of a model that gives one row of logits per record."""

    def __init__(self) -> None:
        self.logits, self.targets, self.rows = list[Tensor](), list[Tensor](), list[Tensor]()

    def update(self, logits: Tensor, micro: MicroBatch) -> None:
        """Keep the rows of a micro-batch that have a record."""
        real = micro.row_indices >= 0
        self.logits.append(logits[real].double().cpu())
        self.targets.append(micro.targets[real].cpu())
        self.rows.append(micro.row_indices[real].cpu())

    def outputs(self) -> ModelOutputs:
        """All outputs, in the order of rows."""
        rows = torch.cat(self.rows)
        order = rows.argsort()
        return ModelOutputs(torch.cat(self.logits)[order], torch.cat(self.targets)[order], rows[order])


@dataclass
class EvalResult:
    """Scores and predictions of one model, or of several as one, on one split.

    Attributes:
        scores: By bare name.
        tables: Confusion matrix and per-class scores, where there are any.
        predictions: One dict per row, in the order of rows.
        row_scores: By bare name, those that can be computed over any rows, for comparisons.
        counts: The line of the data report.
    """

    scores: dict[str, float]
    tables: dict[str, Any] = field(default_factory=dict)
    predictions: list[dict[str, Any]] = field(default_factory=list)
    row_scores: dict[str, RowScore] = field(default_factory=dict)
    counts: dict[str, int | float] = field(default_factory=dict)


def summarize_predictions(
    task: Task, predictions: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, float], dict[str, Any]]:
    """The scores and the tables that need all predictions of a split, such as exact match over generated answers."""
    scores = {**task.summary(predictions), **answer_metric_scores(task, predictions)}
    return {name: float(value) for name, value in scores.items()}, task.tables(predictions)


class TrainSample(nn.Module):
    """A fixed sample of training rows, whose plain loss shows the generalisation gap.

    Their loss is that of the weights that validation sees, without dropout or any other noise.  The loss that training
    logs is none to compare with: it has noise, penalties and smoothing in it, and is the mean over weights that have
    moved on since.

    Args:
        task: Knows the loss.
        examples: The sample.
        batch_size: Rows scored at once, over all ranks; no loss depends on it.
        micro_tokens: Most tokens of one forward pass on one rank.
        packed: Whether rows are packed.
    """

    def __init__(
        self, task: Task, examples: Sequence[Example], *, batch_size: int, micro_tokens: int, packed: bool
    ) -> None:
        super().__init__()
        self.task, self.examples, self.scores = task, examples, task.scores()
        self.batch_size, self.micro_tokens, self.packed = batch_size, micro_tokens, packed

    def loss(self, model: PreTrainedModel, to_device: Callable[[Batch], Batch], rank: int, world_size: int) -> float:
        """The mean loss over all ranks; every rank must call it.

        Args:
            model: In evaluation mode.
            to_device: Moves a batch to where the model is.
            rank: This process among the `world_size`.
            world_size: Processes that share the rows.
        """
        loader = BatchLoader(
            self.examples,
            collate=self.task.collate,
            filler=self.task.padding_example(),
            batch_size=self.batch_size,
            micro_tokens=self.micro_tokens,
            packed=self.packed,
            shuffle=False,
            rank=rank,
            world_size=world_size,
            equal_passes=is_sharded(model),
        )
        micro_batches = (micro for batch in loader for micro in to_device(batch).micro_batches)
        evaluate_task(micro_batches, self.task, model, self.scores)
        loss = self.scores.compute()["loss"]
        self.scores.reset()
        return loss


def make_train_sample(
    settings: RunConfig, task: Task, examples: Mapping[str, Sequence[Example]], *, packed: bool
) -> TrainSample | None:
    """As many training rows as validation rows, at most `callbacks.train_eval_rows`, evenly spaced; or None."""
    rows = min(settings.callbacks.train_eval_rows, len(examples["validation"]))
    if not rows:
        return None
    return TrainSample(
        task,
        select_items(examples["train"], evenly_spaced(len(examples["train"]), rows)),
        batch_size=settings.eval.batch_size,
        micro_tokens=settings.micro_tokens,
        packed=packed,
    )
