"""Metrics of classification, from tables of counts: exact for every batch size and number of ranks."""

from collections.abc import Sequence
from math import nan, sqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import SumMetric
from torchmetrics.classification import MulticlassConfusionMatrix, MultilabelConfusionMatrix
from typing_extensions import override

from tunelab.data.examples import MicroBatch
from tunelab.tasks.base import Scores
from tunelab.tasks.metrics.directions import LABEL_METRICS


def safe_ratio(numerator: float, denominator: float) -> float:
    """A share; 0 where there is nothing to share, as scikit-learn with `zero_division=0`."""
    return numerator / denominator if denominator else 0.0


def per_class_metrics(
    labels: Sequence[str], hits: Sequence[int], predicted: Sequence[int], true: Sequence[int]
) -> list[dict[str, Any]]:
    """Precision, recall, f1, support and number of predictions of each class.

    Args:
        labels: Class names, C of them, as the counts that follow.
        hits: Records of the class that are predicted as such.
        predicted: Records predicted as the class.
        true: Records of the class.
    """
    return [
        {
            "label": label,
            "precision": safe_ratio(hit, guess),
            "recall": safe_ratio(hit, count),
            "f1": safe_ratio(2 * hit, guess + count),
            "support": count,
            "predicted": guess,
        }
        for label, hit, guess, count in zip(labels, hits, predicted, true, strict=True)
    ]


def macro_average(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Plain means over classes; nan without any."""
    return {key: sum(row[key] for row in rows) / len(rows) if rows else nan for key in ("f1", "precision", "recall")}


def macro_scores(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Plain means over the classes that occur as label or as prediction, as scikit-learn takes them.

    `f1_all` is over every class: one that the split lacks counts as 0, so a small split bounds it from above.
    """
    occurring = [row for row in rows if row["support"] or row["predicted"]]
    return macro_average(occurring) | {"f1_all": macro_average(rows)["f1"] if occurring else nan}


def matthews_corrcoef(table: Sequence[Sequence[int]]) -> float:
    """Matthews correlation of a confusion matrix, (C, C); 0 where labels or predictions are all the same.

    Source: Gorodkin 2004, Comparing two K-category assignments by a K-category correlation coefficient.
    """
    true = [sum(row) for row in table]
    predicted = [sum(line) for line in zip(*table, strict=True)]
    rows = sum(true)
    hits = sum(table[index][index] for index in range(len(table)))
    covariance = hits * rows - sum(a * b for a, b in zip(true, predicted, strict=True))
    spread = (rows**2 - sum(a * a for a in true)) * (rows**2 - sum(b * b for b in predicted))
    return safe_ratio(covariance, sqrt(spread))


class MulticlassScores(Scores):
    """One label per record.  `loss` is the plain cross-entropy in nats per record.

    Class weights and label smoothing change what is optimised, not what is scored, so runs that differ in them
    can be compared.  `f1`, `precision` and `recall` are macro means over the classes that occur, see `macro_scores`.
    """

    higher_is_better = LABEL_METRICS

    def __init__(self, labels: Sequence[str]) -> None:
        """Start from nothing; `labels` are the class names in the order of the logits."""
        super().__init__()
        self.labels = list(labels)
        self.confusion = MulticlassConfusionMatrix(len(labels), validate_args=False)  # state (C, C): true, predicted
        self.loss = SumMetric(nan_strategy="disable").set_dtype(torch.float64)
        self.confusion_counts: list[list[int]] | None = None

    @override
    def update(self, logits: Tensor, micro: MicroBatch) -> None:
        is_record = micro.row_indices >= 0
        scores, targets = logits[is_record].detach().double(), micro.targets[is_record]
        self.confusion.update(scores.argmax(dim=-1), targets)
        self.loss.update(F.cross_entropy(scores, targets, reduction="sum"))
        self.confusion_counts = None

    @override
    def compute(self) -> dict[str, float]:
        counted: list[list[int]] = self.confusion.compute().tolist()
        self.confusion_counts = counted
        rows = sum(map(sum, counted))
        hits = sum(counted[index][index] for index in range(len(counted)))
        return {
            "loss": float(self.loss.compute()) / rows if rows else nan,
            "accuracy": hits / rows if rows else nan,
            **macro_scores(self._classes(counted)),
            "mcc": matthews_corrcoef(counted),
        }

    @override
    def reset(self) -> None:
        self.confusion.reset()
        self.loss.reset()
        self.confusion_counts = None

    @override
    def report(self) -> dict[str, Any]:
        if self.confusion_counts is None:
            self.compute()
        counted = self.confusion_counts or []
        return {"labels": self.labels, "confusion": counted, "per_class": self._classes(counted)}

    def _classes(self, counted: list[list[int]]) -> list[dict[str, Any]]:
        hits = [counted[index][index] for index in range(len(counted))]
        return per_class_metrics(
            self.labels, hits, [sum(line) for line in zip(*counted, strict=True)], [sum(row) for row in counted]
        )


class MultilabelScores(Scores):
    """Any number of labels per record.  `loss` is binary cross-entropy, mean over classes, in nats per record.

    `accuracy` counts the records whose whole set of labels is right; `f1`, `precision` and `recall` are macro
    means over all classes, as scikit-learn takes the columns of an indicator matrix, `micro_f1` pools the decisions.
    """

    higher_is_better = LABEL_METRICS

    def __init__(self, labels: Sequence[str], threshold: float) -> None:
        """Start from nothing; a label counts as predicted from the probability `threshold` on."""
        super().__init__()
        self.labels = list(labels)
        self.threshold = threshold
        self.confusion = MultilabelConfusionMatrix(len(labels), validate_args=False)  # state (C, 2, 2): true, predicted
        self.exact_matches = SumMetric(nan_strategy="disable").set_dtype(torch.float64)
        self.loss = SumMetric(nan_strategy="disable").set_dtype(torch.float64)
        self.confusion_counts: list[list[list[int]]] | None = None

    @override
    def update(self, logits: Tensor, micro: MicroBatch) -> None:
        is_record = micro.row_indices >= 0
        scores, targets = logits[is_record].detach(), micro.targets[is_record]
        chosen = scores.float().sigmoid() >= self.threshold  # float32, as the predictions are decided
        self.confusion.update(chosen.long(), targets.long())
        self.exact_matches.update((chosen == targets.bool()).all(dim=1).sum())
        each = F.binary_cross_entropy_with_logits(scores.double(), targets.double(), reduction="none")
        self.loss.update(each.mean(dim=1).sum())
        self.confusion_counts = None

    @override
    def compute(self) -> dict[str, float]:
        counted: list[list[list[int]]] = self.confusion.compute().tolist()
        self.confusion_counts = counted
        rows = sum(map(sum, counted[0]))
        hits = sum(square[1][1] for square in counted)
        misses = sum(square[0][1] + square[1][0] for square in counted)
        return {
            "loss": float(self.loss.compute()) / rows if rows else nan,
            "accuracy": float(self.exact_matches.compute()) / rows if rows else nan,
            **macro_average(self._classes(counted)),
            "micro_f1": safe_ratio(2 * hits, 2 * hits + misses),
        }

    @override
    def reset(self) -> None:
        for metric in (self.confusion, self.exact_matches, self.loss):
            metric.reset()
        self.confusion_counts = None

    @override
    def report(self) -> dict[str, Any]:
        if self.confusion_counts is None:
            self.compute()
        counted = self.confusion_counts or []
        return {"labels": self.labels, "confusion": counted, "per_class": self._classes(counted)}

    def _classes(self, counted: list[list[list[int]]]) -> list[dict[str, Any]]:
        hits = [square[1][1] for square in counted]
        predicted = [square[0][1] + square[1][1] for square in counted]
        return per_class_metrics(self.labels, hits, predicted, [sum(square[1]) for square in counted])
