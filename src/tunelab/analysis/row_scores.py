"""Scores of predictions that can be computed over any choice of rows, so that they can be resampled.  Pure.

Shape letters: N rows, C classes or targets.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tunelab.language.translation import translate

RowIndices = NDArray[np.int64]
FloatArray = NDArray[np.float64]
NO_VALUES: FloatArray = np.zeros(0)
PSEUDO_ROWS = 4.0  # as many as Wilson's interval is centred by at 95 %
MIN_ROWS_PER_CLASS = 3  # with fewer on average the interval of macro F1 covers too seldom (bench/intervals)
ANSWER_SCORES = ("exact_match", "token_f1", "rougeL")
GROUP_KEYS = ("family", "source")  # keys of an answer by which there are tables


@dataclass(frozen=True)
class RowScore:
    """A score over the rows of a split.

    Attributes:
        rows: How many there are.
        score_rows: The score over chosen rows, which may repeat.
        lower_is_better: Which way it improves.
        row_values: One value a row, whose mean is the score; empty where the score is no mean of rows.
        pseudo_weights: Weights of pseudo-rows, indices from `rows` on: an interval is drawn from them too, so that a
            perfect score on few rows is not taken for certain (Agresti and Coull 1998).
        scale: What its interval must respect: a `share` lies between 0 and 1, the interval of a `correlation` is even
            after Fisher's transformation.
        no_interval: Why the rows are too few for an interval; empty where they are not.
    """

    rows: int
    score_rows: Callable[[RowIndices], float]
    lower_is_better: bool = False
    row_values: FloatArray = field(default_factory=lambda: NO_VALUES)
    pseudo_weights: FloatArray = field(default_factory=lambda: NO_VALUES)
    scale: Literal["", "share", "correlation"] = ""
    no_interval: str = ""

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


def macro_f1_score(targets: RowIndices, predicted: RowIndices, names: int) -> RowScore:
    """Macro F1 of one class a row, the mean over the classes that occur among the chosen rows.

    Args:
        targets: Class indices, (N,).
        predicted: The same.
        names: Classes that the indices are of.
    """
    classes, counts = np.unique(targets, return_counts=True)
    pseudo_true, pseudo_predicted = np.tile(classes, 2), np.concatenate([classes, np.roll(classes, 1)])
    weights = np.tile(counts / max(1, len(targets)) * PSEUDO_ROWS / 2, 2)  # half of them right, half wrong
    true, answered = np.concatenate([targets, pseudo_true]), np.concatenate([predicted, pseudo_predicted])

    def macro_f1(chosen: RowIndices) -> float:
        hits = np.bincount(true[chosen][true[chosen] == answered[chosen]], minlength=names)
        occurrences = np.bincount(true[chosen], minlength=names) + np.bincount(answered[chosen], minlength=names)
        return _mean_f1(hits, occurrences)

    too_few = ""
    if len(targets) < MIN_ROWS_PER_CLASS * len(classes):
        too_few = translate(
            "{count} [row|rows] of {classes} [class is|classes are] too few for an interval of macro F1",
            count=len(targets),
            classes=len(classes),
        )
    return RowScore(len(targets), macro_f1, pseudo_weights=weights, scale="share", no_interval=too_few)


def pearson_score(predicted: FloatArray, targets: FloatArray) -> RowScore:
    """Pearson's correlation, the mean over targets: (N, C) each; nan where one side is constant."""

    def correlation(chosen: RowIndices) -> float:
        left, right = (side[chosen] - side[chosen].mean(axis=0) for side in (predicted, targets))
        norms = np.linalg.norm(left, axis=0) * np.linalg.norm(right, axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(((left * right).sum(axis=0) / norms).mean())

    return RowScore(len(predicted), correlation, scale="correlation")


def class_scores(log_probs: FloatArray, targets: RowIndices) -> dict[str, RowScore]:
    """Accuracy, macro F1 and loss of one label a row: log-probabilities (N, C) against class indices (N,)."""
    width = log_probs.shape[1]
    predicted = log_probs.argmax(axis=1)
    return {
        "accuracy": mean_score(predicted == targets),
        "f1": macro_f1_score(targets, predicted, width),
        "loss": mean_score(-log_probs[np.arange(len(targets)), targets], lower_is_better=True),
    }


def multilabel_scores(logits: FloatArray, targets: RowIndices, threshold: float) -> dict[str, RowScore]:
    """Accuracy of whole sets, macro F1 and loss of several labels a row: logits (N, C) against 0 and 1, (N, C)."""
    predicted = (1 / (1 + np.exp(-logits.astype(np.float32))) >= threshold).astype(np.float64)
    hits, counts = predicted * targets, predicted + targets
    losses = np.logaddexp(0, np.where(targets > 0, -logits, logits)).mean(axis=1)
    return {
        "accuracy": mean_score((predicted == targets).all(axis=1)),
        "f1": multilabel_f1_score(hits, counts),
        "loss": mean_score(losses, lower_is_better=True),
    }


def multilabel_f1_score(hits: FloatArray, counts: FloatArray) -> RowScore:
    """Macro F1 of several labels a row, over all labels: whether each is right, and how often true or predicted."""
    rows, width = hits.shape
    all_hits = np.concatenate([hits, np.eye(width), np.zeros((width, width))])
    all_counts = np.concatenate([counts, 2 * np.eye(width), np.eye(width)])
    weights = np.repeat([PSEUDO_ROWS / 2, PSEUDO_ROWS], width) * np.tile(counts.sum(axis=0) / max(1, 2 * rows), 2)

    def macro_f1(chosen: RowIndices) -> float:
        return float(_f1(all_hits[chosen].sum(axis=0), all_counts[chosen].sum(axis=0)).mean())

    return RowScore(rows, macro_f1, pseudo_weights=weights, scale="share")


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
    return {
        "accuracy": mean_score(targets == predicted),
        "f1": macro_f1_score(targets, predicted, len(names)),
    }


def _mean_f1(hits: NDArray[Any], counts: NDArray[Any]) -> float:
    """The mean F1 of the classes that occur; nan without any."""
    return float(_f1(hits, counts)[counts > 0].mean()) if counts.any() else math.nan


def _f1(hits: NDArray[Any], counts: NDArray[Any]) -> FloatArray:
    """F1 of each class from its hits and from how often it is true plus how often it is predicted; 0 without any."""
    scores: FloatArray = np.divide(2.0 * hits, counts, out=np.zeros(len(counts)), where=counts > 0)
    return scores
