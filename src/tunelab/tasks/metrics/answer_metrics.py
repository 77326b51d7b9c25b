"""Metrics of generated answers: scores of one answer, sums over answers, generation during validation.

C classes.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import nan
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torchmetrics import Metric
from transformers import PreTrainedModel
from typing_extensions import override

from tunelab.analysis.row_scores import GROUP_KEYS
from tunelab.data.conversation import Conversation
from tunelab.data.examples import Batch
from tunelab.data.protocols import Record
from tunelab.errors import DataError
from tunelab.generation.decode import GeneratedAnswer
from tunelab.models.sharding import is_sharded, passes_in_step
from tunelab.tasks.base import Task
from tunelab.tasks.metrics.directions import CHOICE_METRICS, TEXT_METRICS
from tunelab.tasks.metrics.label_metrics import macro_scores, per_class_metrics
from tunelab.tasks.metrics.own_metrics import answer_metric_scores, gather_objects
from tunelab.tasks.metrics.text_overlap import exact_match, rouge_l, token_f1
from tunelab.tasks.multiple_choice import AnswerClasses, Choices, normalize_answer

COUNT_FIELDS = (
    4  # numbers that come before the scores of a vector: answers, those to choices, right ones, unmatched ones
)
ROWS_TOGETHER = 1024  # rows that are answered together: enough to keep a batch full, few enough to see progress

Prediction = Mapping[str, Any]


class AnswerTotals:
    """Totals over predictions: a vector of counts and sums, from which every score follows.

    Args:
        classes: What answers are sorted into, C of them.
    """

    def __init__(self, classes: AnswerClasses) -> None:
        self.classes = classes
        self.names = (*TEXT_METRICS, *(CHOICE_METRICS if classes.names else ()))
        self.width = COUNT_FIELDS + len(TEXT_METRICS) + 3 * len(classes.names)

    def to_vector(self, prediction: Prediction) -> list[float]:
        """Counts, text scores, and for each class whether it is predicted and true, predicted, true."""
        vector = [0.0] * self.width
        if "exact_match" not in prediction:  # plain text has no prompt
            return vector
        vector[0] = 1
        vector[COUNT_FIELDS : COUNT_FIELDS + len(TEXT_METRICS)] = [
            *(prediction[name] for name in list(TEXT_METRICS)[:3]),
            float(prediction["ended"] != "stop"),
        ]
        if "label" in prediction:
            label, choice = prediction["label"], prediction["choice"]
            vector[1:COUNT_FIELDS] = [1, float(label == choice), float(choice is None)]
            texts = prediction.get("choices", ())
            true, predicted = (self.classes.class_index(texts, text) for text in (label, choice))
            start, count = COUNT_FIELDS + len(TEXT_METRICS), len(self.classes.names)
            for offset, place in ((1, predicted), (2, true)):
                if place is not None:
                    vector[start + offset * count + place] = 1
            if true is not None and true == predicted:
                vector[start + true] = 1
        return vector

    def sum_vectors(self, predictions: Iterable[Prediction]) -> list[float]:
        """The sum of the vectors of many predictions."""
        total = [0.0] * self.width
        for prediction in predictions:
            total = [a + b for a, b in zip(total, self.to_vector(prediction), strict=True)]
        return total

    def to_metrics(self, total: Sequence[float]) -> dict[str, float]:
        """Every score by its bare name; nan where nothing was answered.

        F1 is the plain mean over the classes that are right or answered somewhere, `f1_all` that over all classes.
        """
        answers, offered, right, unmatched = total[:COUNT_FIELDS]
        means = total[COUNT_FIELDS : COUNT_FIELDS + len(TEXT_METRICS)]
        metrics = {name: value / answers if answers else nan for name, value in zip(TEXT_METRICS, means, strict=True)}
        if self.classes.names:
            macro = macro_scores(self.by_class(total))
            metrics |= {"accuracy": right / offered if offered else nan, "f1": macro["f1"], "f1_all": macro["f1_all"]}
            metrics["unmatched"] = unmatched
        return metrics

    def by_class(self, total: Sequence[float]) -> list[dict[str, Any]]:
        """Precision, recall, F1 and support of each class."""
        start, count = COUNT_FIELDS + len(TEXT_METRICS), len(self.classes.names)
        hits, predicted, true = (
            [int(value) for value in total[start + part * count : start + (part + 1) * count]] for part in range(3)
        )
        return per_class_metrics(self.classes.names, hits, predicted, true)

    def tables(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Scores of each task family and of each source, and of each class; plain JSON values."""
        tables: dict[str, Any] = {}
        for key in GROUP_KEYS:
            groups: dict[str, list[Prediction]] = {}
            for prediction in predictions:
                if "exact_match" in prediction:
                    groups.setdefault(str(prediction.get(key, "(none)")), []).append(prediction)
            if groups.keys() - {"(none)"}:
                tables[f"by_{key}"] = {name: self.table_row(groups[name]) for name in sorted(groups)}
        if self.classes.names:
            tables["choices"] = self.by_class(self.sum_vectors(predictions))
        return tables

    def table_row(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """One line of a table: the number of answers, then their scores."""
        total = self.sum_vectors(predictions)
        scores = {name: value for name, value in self.to_metrics(total).items() if value == value}
        if not total[1]:
            scores = {name: value for name, value in scores.items() if name not in CHOICE_METRICS}
        return {"rows": len(predictions), **scores}


def score_answer(
    row: int, conversation: Conversation, reference: str, generated: tuple[str, GeneratedAnswer], labels: Sequence[str]
) -> dict[str, Any]:
    """Scores of an answer, with all that is needed to compute them again.

    Args:
        row: Index of the record.
        conversation: The record.
        reference: The answer as the record has it.
        generated: The generated text, and how it ended.
        labels: What answers are sorted into where records name a label only.
    """
    text, answer = generated
    return {
        "row": row,
        **{name: conversation.meta[name] for name in GROUP_KEYS if conversation.meta.get(name) is not None},
        **choice_fields(conversation, text, labels),
        "prompt": "\n\n".join(
            message.content for message in conversation.messages[: conversation.last_assistant_turn() or 0]
        ),
        "reference": reference,
        "prediction": text,
        "exact_match": exact_match(text, reference),
        "token_f1": token_f1(text, reference),
        "rougeL": rouge_l(text, reference),
        "ended": answer.finish_reason,
        **({"prompt_cut": answer.prompt_tokens_cut} if answer.prompt_tokens_cut else {}),
    }


def choice_fields(conversation: Conversation, text: str, labels: Sequence[str]) -> dict[str, Any]:
    """The right choice and the one that an answer means, as fields; none where the record offers no choices."""
    offered = read_choices(conversation, labels)
    if offered is None:
        return {}
    chosen = offered.chosen_index(text)
    fields = {
        "label": offered.texts[offered.correct_index],
        "choice": None if chosen is None else offered.texts[chosen],
    }
    return {"choices": list(offered.texts), **fields} if conversation.meta.get("choices") is not None else fields


def read_choices(conversation: Conversation, labels: Sequence[str]) -> Choices | None:
    """The choices that a record offers; None where it offers none.

    Args:
        conversation: The record.
        labels: What answers are sorted into where records name a label only; empty where that says nothing.

    Raises:
        DataError: If its choices cannot be used.
    """
    label = conversation.meta.get("label")
    if conversation.meta.get("choices") is not None:
        return Choices.from_columns(conversation.meta["choices"], label, reference_text(conversation))
    if labels and isinstance(label, str):
        return Choices.from_columns(
            labels if label in labels else (*labels, label), label, reference_text(conversation)
        )
    return None


def collect_answer_classes(conversations: Iterable[Conversation | None]) -> AnswerClasses:
    """The classes of the answers of the training split.

    Where no record offers choices, labels serve, if every record has one and it is its answer: a column named
    `label` may as well hold something else.

    Args:
        conversations: The records; None for any number of those with neither choices nor a label.
    """
    first: tuple[str, ...] = ()
    closed, most = True, 0
    labels: dict[str, str] | None = {}  # as compared, and as written; None once a label was no answer
    for conversation in conversations:
        if conversation is None:
            labels = None
            continue
        if texts := choice_texts(conversation):
            first = first or texts
            closed, most = closed and set(texts) == set(first), max(most, len(texts))
        label = conversation.meta.get("label")
        if (
            labels is not None
            and isinstance(label, str)
            and normalize_answer(label) == normalize_answer(reference_text(conversation))
        ):
            labels[normalize_answer(label)] = label
        else:
            labels = None
    if first:
        return AnswerClasses(tuple(sorted(first))) if closed else AnswerClasses.by_position(most)
    return AnswerClasses(tuple(sorted(labels.values()))) if labels and len(labels) > 1 else AnswerClasses()


def choice_texts(conversation: Conversation) -> tuple[str, ...] | None:
    """The choices of a record; None where there are none or they are unreadable, which `encode` reports by line."""
    try:
        offered = read_choices(conversation, ())
    except DataError:
        return None
    return offered.texts if offered else None


def reference_text(conversation: Conversation) -> str:
    """The last answer as the record has it."""
    last = conversation.last_assistant_turn()
    return "" if last is None else conversation.messages[last].content.strip()


class SummedVector(Metric):
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


class PromptedRows:
    """Rows that are answered by generation, gathered over many steps so that they take turns in the rows of one batch.

    Args:
        task: Generates and scores the answers.
        records: The split.
    """

    def __init__(self, task: Task, records: Sequence[Record]) -> None:
        self.task, self.records = task, records
        self.waiting: list[int] = []

    def add(self, model: PreTrainedModel, rows: Iterable[int]) -> list[dict[str, Any]]:
        """Take rows in; the predictions of all that wait, once they are many, else none yet."""
        self.waiting += rows
        # processes that share a model answer at one time, and each has another number of rows
        return self.answer(model) if len(self.waiting) >= ROWS_TOGETHER and not is_sharded(model) else []

    def answer(self, model: PreTrainedModel) -> list[dict[str, Any]]:
        """The predictions of all rows that wait; every process must call it."""
        rows, self.waiting = self.waiting, []
        with passes_in_step(model):
            return self.task.generate_predictions(model, rows, [self.records[row] for row in rows]) if rows else []


class GenerationEvaluator(nn.Module):
    """Has a fixed sample of rows answered at every validation, and keeps sums of the scores.

    Args:
        task: Generates and scores the answers.
        totals: What the predictions add up to.
        records: The split.
        rows: Which of its records are answered.
    """

    def __init__(self, task: Task, totals: AnswerTotals, records: Sequence[Record], rows: Collection[int]) -> None:
        super().__init__()
        self.task, self.totals, self.rows = task, totals, rows
        self.prompted = PromptedRows(task, records)
        self.sums = SummedVector(totals.width)
        self.answers = list[Prediction]()  # kept for metrics of one's own alone
        self.process_group: distributed.ProcessGroup | None = None  # those with other rows; None is all

    def update(self, model: PreTrainedModel, step: Batch) -> None:
        """Take in those rows of a step that belong to the sample."""
        rows = (row for micro in step.micro_batches for row in micro.predicted_rows() if row in self.rows)
        self._count(self.prompted.add(model, rows))

    def finish(self, model: PreTrainedModel) -> None:
        """Have the rows answered that still wait, once all steps are there."""
        self._count(self.prompted.answer(model))

    def _count(self, predictions: Sequence[Prediction]) -> None:
        self.sums.update(torch.tensor(self.totals.sum_vectors(predictions), dtype=torch.float64))
        if self.task.own_metrics is not None:
            self.answers += predictions

    def compute(self) -> dict[str, float]:
        """Every score by its bare name, over all ranks."""
        scores = self.totals.to_metrics(self.sums.compute().tolist())
        if self.task.own_metrics is None:
            return scores
        return scores | answer_metric_scores(
            self.task, [line for rank in gather_objects(self.answers, self.process_group) for line in rank]
        )

    def reset(self) -> None:
        """Forget everything."""
        self.sums.reset()
        self.answers = []
        self.prompted.waiting = []
