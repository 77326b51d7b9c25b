"""How a model is scored: at each validation, and once on the test split.  The scores themselves live in tasks/."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import lightning as L
from transformers import PreTrainedModel
from typing_extensions import override

from tunelab.data.examples import Step
from tunelab.errors import Diverged
from tunelab.tasks.answer_scores import AnswerCheck
from tunelab.tasks.base import Record, Scores, Task
from tunelab.tasks.source_scores import SourceScores
from tunelab.train_sample import TrainSample


class Scored(L.LightningModule):
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
        self.val_answers: AnswerCheck | None = None
        self.train_sample: TrainSample | None = None
        self.test_name = "test"
        self.test_rows: Collection[int] | None = None  # those that are answered; None: all that there are
        self.test_records: Sequence[Record] = ()
        self.keep_predictions: Callable[[list[dict[str, Any]]], None] = lambda rows: None

    @override
    def validation_step(self, step: Step, batch_idx: int) -> None:
        for micro in step.micros:
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
    def test_step(self, step: Step, batch_idx: int) -> None:
        chosen = self.test_rows
        for micro in step.micros:
            logits = self.task.logits(self.model, micro)
            self.test_scores.update(logits, micro)
            self.test_sources.update(logits, micro)
            rows = [row for row in micro.rows.tolist() if row >= 0 and (chosen is None or row in chosen)]
            if not rows:
                continue
            records = [self.test_records[row] for row in rows]
            if chosen is None:
                self.keep_predictions(self.task.predictions(self.model, micro, logits, records))
            else:
                self.keep_predictions(self.task.answered(self.model, rows, records))

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
