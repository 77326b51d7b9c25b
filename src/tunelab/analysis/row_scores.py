"""Scores of predictions that can be computed over any choice of rows, so that they can be resampled.  Pure.

Shape letters: N rows, C classes or targets.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

RowIndices = NDArray[np.int64]
FloatArray = NDArray[np.float64]
NO_VALUES: FloatArray = np.zeros(0)
ANSWER_SCORES = ("exact_match", "token_f1", "rougeL")


@dataclass(frozen=True)
class RowScore:
    """A score over the rows of a split.

    Attributes:
        rows: How many there are.
        score_rows: The score over chosen rows, which may repeat.
        lower_is_better: Which way it improves.
        row_values: One value a row, whose mean is the score; empty where the score is no mean of rows.
    """

    rows: int
    score_rows: Callable[[RowIndices], float]
    lower_is_better: bool = False
    row_values: FloatArray = field(default_factory=lambda: NO_VALUES)

    @property
    def value(self) -> float:
        """The score over every row once."""
        return self.score_rows(np.arange(self.rows))

    @property
    def binary(self) -> bool:
        """Whether each row is right or wrong."""
        return bool(len(self.row_values)) and bool(np.isin(self.row_values, (0.0, 1.0)).all())


def mean_score(values: Sequence[float] | NDArray[Any], *, lower_is_better: bool = False) -> RowScore:
    """A score that is the mean of one value a row."""
    each = np.asarray(values, dtype=np.float64)
    return RowScore(len(each), lambda chosen: float(each[chosen].mean()), lower_is_better, each)


def ratio_score(numerators: FloatArray, denominators: FloatArray, *, lower_is_better: bool = False) -> RowScore:
    """A sum over rows divided by another one: a mean by token."""

    def ratio(chosen: RowIndices) -> float:
        return float(numerators[chosen].sum() / max(denominators[chosen].sum(), 1e-300))

    return RowScore(len(numerators), ratio, lower_is_better)


def macro_f1_score(targets: RowIndices, predicted: RowIndices, names: int, known: int) -> RowScore:
    """Macro F1 of one class a row, the mean over the classes that the model knows.

    Args:
        targets: Class indices, (N,).
        predicted: The same.
        names: Classes that occur in either.
        known: Classes of the model.
    """
    cells = targets * names + predicted

    def macro_f1(chosen: RowIndices) -> float:
        table = np.bincount(cells[chosen], minlength=names * names).reshape(names, names)
        return float(_f1(table.diagonal(), table.sum(axis=1) + table.sum(axis=0)).sum() / max(known, 1))

    return RowScore(len(cells), macro_f1)


def pearson_score(predicted: FloatArray, targets: FloatArray) -> RowScore:
    """Pearson's correlation, the mean over targets: (N, C) each; nan where one side is constant."""

    def correlation(chosen: RowIndices) -> float:
        left, right = (side[chosen] - side[chosen].mean(axis=0) for side in (predicted, targets))
        norms = np.linalg.norm(left, axis=0) * np.linalg.norm(right, axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(((left * right).sum(axis=0) / norms).mean())

    return RowScore(len(predicted), correlation)


def class_scores(log_probs: FloatArray, targets: RowIndices) -> dict[str, RowScore]:
    """Accuracy, macro F1 and loss of one label a row: log-probabilities (N, C) against class indices (N,)."""
    width = log_probs.shape[1]
    predicted = log_probs.argmax(axis=1)
    return {
        "accuracy": mean_score(predicted == targets),
        "f1": macro_f1_score(targets, predicted, width, width),
        "loss": mean_score(-log_probs[np.arange(len(targets)), targets], lower_is_better=True),
    }


def multilabel_scores(logits: FloatArray, targets: RowIndices, threshold: float) -> dict[str, RowScore]:
    """Accuracy of whole sets, macro F1 and loss of several labels a row: logits (N, C) against 0 and 1, (N, C)."""
    predicted = (1 / (1 + np.exp(-logits.astype(np.float32))) >= threshold).astype(np.float64)
    hits, counts = predicted * targets, predicted + targets
    losses = np.logaddexp(0, np.where(targets > 0, -logits, logits)).mean(axis=1)
    return {
        "accuracy": mean_score((predicted == targets).all(axis=1)),
        "f1": RowScore(
            len(targets), lambda chosen: float(_f1(hits[chosen].sum(axis=0), counts[chosen].sum(axis=0)).mean())
        ),
        "loss": mean_score(losses, lower_is_better=True),
    }


def regression_scores(predicted: FloatArray, targets: FloatArray) -> dict[str, RowScore]:
    """Squared and absolute error and Pearson's correlation, means over targets: (N, C) in the user's units."""
    return {
        "mse": mean_score(((predicted - targets) ** 2).mean(axis=1), lower_is_better=True),
        "mae": mean_score(np.abs(predicted - targets).mean(axis=1), lower_is_better=True),
        "pearson": pearson_score(predicted, targets),
    }


def answer_scores(predictions: Sequence[Mapping[str, Any]]) -> dict[str, RowScore]:
    """Scores of generated answers, means over the rows that were answered."""
    rows = [row for row in predictions if "exact_match" in row]
    if not rows:
        return {}
    scores = {name: mean_score([float(row[name]) for row in rows]) for name in ANSWER_SCORES}
    return scores | choice_accuracy(rows)


def choice_accuracy(rows: Sequence[Mapping[str, Any]]) -> dict[str, RowScore]:
    """The accuracy of answers that chose among options; empty unless every row did."""
    if not all("choice" in row and "label" in row for row in rows):
        return {}
    return {"accuracy": mean_score([row["choice"] == row["label"] for row in rows])}


def scores_of_predictions(rows: Sequence[Mapping[str, Any]]) -> dict[str, RowScore]:
    """The scores that lines of predictions.jsonl give, by bare name, the most telling first."""
    if not rows:
        return {}
    first = rows[0]
    if isinstance(first.get("label"), list):
        return {"accuracy": mean_score([sorted(row["label"]) == sorted(row["prediction"]) for row in rows])}
    if "probabilities" in first:
        return _scores_of_classes(rows)
    if isinstance(first.get("target"), int | float):
        columns = [np.array([[float(row[name])] for row in rows]) for name in ("prediction", "target")]
        return regression_scores(*columns)
    if isinstance(first.get("margin"), int | float):
        margins = np.array([row["margin"] for row in rows])
        return {"accuracy": mean_score(margins > 0), "margin": mean_score(margins)}
    names = [name for name in ANSWER_SCORES if all(name in row for row in rows)]
    return choice_accuracy(rows) | {name: mean_score([row[name] for row in rows]) for name in names}


def _scores_of_classes(rows: Sequence[Mapping[str, Any]]) -> dict[str, RowScore]:
    """Accuracy and macro F1 of one label a row."""
    labels, predictions = ([str(row[name]) for row in rows] for name in ("label", "prediction"))
    names = sorted({*labels, *predictions, *rows[0]["probabilities"]})
    index = {name: place for place, name in enumerate(names)}
    targets, predicted = (np.array([index[name] for name in column]) for column in (labels, predictions))
    known = len(rows[0]["probabilities"])
    return {
        "accuracy": mean_score(targets == predicted),
        "f1": macro_f1_score(targets, predicted, len(names), known),
    }


def _f1(hits: NDArray[Any], counts: NDArray[Any]) -> FloatArray:
    """F1 of each class from its hits and from how often it is true plus how often it is predicted; 0 without any."""
    scores: FloatArray = np.divide(2.0 * hits, counts, out=np.zeros(len(counts)), where=counts > 0)
    return scores
