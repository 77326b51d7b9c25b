"""The LightningModule of validation and test, and the fixed sample of training rows behind the generalisation gap."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import lightning as L
from torch import nn
from transformers import PreTrainedModel
from typing_extensions import override

from tunelab.config.schema import RunConfig
from tunelab.data.examples import Batch, Example
from tunelab.data.lazy_sequences import select_items
from tunelab.data.leakage import evenly_spaced
from tunelab.data.loader import BatchLoader
from tunelab.data.protocols import Record
from tunelab.errors import Diverged
from tunelab.tasks.base import Scores, SourceScores, Task
from tunelab.tasks.metrics.answer_metrics import GenerationEvaluator


class EvalModule(L.LightningModule):
    """Validation and test of a model; training is up to whoever builds on it.

    Args:
        model: The network.
        task: What is learned and how it is scored.
        by_source: With several sources, the scores of each in `validation` and `test`.
    """

    def __init__(self, model: PreTrainedModel, task: Task, by_source: Mapping[str, SourceScores]) -> None:
        super().__init__()
        self.model, self.task = model, task
        self.val_scores, self.test_scores = task.scores(), task.scores()
        self.val_sources, self.test_sources = (
            by_source.get(split, SourceScores(task.scores)) for split in ("validation", "test")
        )
        self.val_answers: GenerationEvaluator | None = None
        self.train_sample: TrainSample | None = None
        self.test_name = "test"
        self.test_rows: Collection[int] | None = None  # those that are answered; None: all that there are
        self.test_records: Sequence[Record] = ()
        self.keep_predictions: Callable[[list[dict[str, Any]]], None] = lambda rows: None

    @override
    def validation_step(self, step: Batch, batch_idx: int) -> None:
        for micro in step.micro_batches:
            logits = self.task.logits(self.model, micro)
            self.val_scores.update(logits, micro)
            self.val_sources.update(logits, micro)
        if self.val_answers is not None:
            self.val_answers.update(self.model, step)

    @override
    def on_validation_epoch_end(self) -> None:
        loss = self._log_scores("val", self.val_scores, self.val_sources)
        if self.train_sample is not None:
            with self.trainer.precision_plugin.val_step_context():
                move = self.trainer.strategy.batch_to_device
                learned = self.train_sample.loss(self.model, move, self.global_rank, self.trainer.world_size)
            self.log_dict({"train/plain_loss": learned, "val/generalisation_gap": loss - learned})
        if self.val_answers is not None:
            self.log_dict({f"val/{name}": value for name, value in self.val_answers.compute().items()})
            self.val_answers.reset()

    @override
    def test_step(self, step: Batch, batch_idx: int) -> None:
        chosen = self.test_rows
        for micro in step.micro_batches:
            logits = self.task.logits(self.model, micro)
            self.test_scores.update(logits, micro)
            self.test_sources.update(logits, micro)
            rows = [row for row in micro.row_indices.tolist() if row >= 0 and (chosen is None or row in chosen)]
            if not rows:
                continue
            records = [self.test_records[row] for row in rows]
            if chosen is None:
                self.keep_predictions(self.task.predictions(self.model, micro, logits, records))
            else:
                self.keep_predictions(self.task.generate_predictions(self.model, rows, records))

    @override
    def on_test_epoch_end(self) -> None:
        self.test_report = self.test_scores.report()
        self._log_scores(self.test_name, self.test_scores, self.test_sources)

    def _log_scores(self, split: str, scores: Scores, sources: SourceScores) -> float:
        found = scores.compute()  # torchmetrics adds sums and counts over ranks: no rank repeats a row
        found |= sources.compute()
        scores.reset()
        sources.reset()
        if found["loss"] != found["loss"] or abs(found["loss"]) == float("inf"):
            raise Diverged(f"{split}/loss is {found['loss']} at step {self.global_step}; lower lr or clip harder")
        self.log_dict({f"{split}/{name}": value for name, value in found.items()})
        return found["loss"]


class TrainSample(nn.Module):
    """The plain loss of some training rows, at the weights that validation sees, without dropout or any other noise.

    The loss that training logs is none to compare with: it has noise, penalties and smoothing in it, and is the mean
    over weights that have moved on since.

    Args:
        task: Knows the loss.
        examples: The sample.
        batch_size: Rows scored at once, over all ranks; no loss depends on it.
        micro_tokens: Most tokens of one forward pass on one rank.
        packed: Whether the model takes rows laid end to end.
    """

    def __init__(
        self, task: Task, examples: Sequence[Example], *, batch_size: int, micro_tokens: int, packed: bool
    ) -> None:
        super().__init__()
        self.task, self.examples, self.scores = task, examples, task.scores()
        self.batch_size, self.micro_tokens, self.packed = batch_size, micro_tokens, packed

    def loss(self, model: PreTrainedModel, place: Callable[[Batch], Batch], rank: int, world: int) -> float:
        """Mean over all ranks; every rank must ask.

        Args:
            model: In evaluation mode.
            place: Moves a step to where the model is.
            rank: This process among the `world`.
            world: Processes that share the rows.
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
            world_size=world,
        )
        for step in loader:
            for micro in place(step).micro_batches:
                self.scores.update(self.task.logits(model, micro), micro)
        found = self.scores.compute()["loss"]
        self.scores.reset()
        return found


def make_train_sample(
    settings: RunConfig, task: Task, examples: Mapping[str, Sequence[Example]], *, packed: bool
) -> TrainSample | None:
    """As many training rows as there are validation rows, at most `callbacks.gap_rows`, evenly spaced; or None."""
    rows = min(int(settings.callbacks["gap_rows"]), len(examples["validation"]))
    if not rows:
        return None
    return TrainSample(
        task,
        select_items(examples["train"], evenly_spaced(len(examples["train"]), rows)),
        batch_size=int(settings.eval["batch_size"]),
        micro_tokens=settings.micro_tokens,
        packed=packed,
    )
