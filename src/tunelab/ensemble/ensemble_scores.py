"""Scores of an ensemble: metrics computable over any rows, gains over the best single model with paired bootstrap
intervals, and the result of an ensemble.

Shape letters: N rows, C classes or targets.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.analysis.statistics import BOOTSTRAP_DRAWS, percentile_interval
from tunelab.tasks.base import Task

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]
ANSWER_METRICS = ("exact_match", "token_f1", "rougeL")


@dataclass(frozen=True)
class RowMetric:
    """A score of one model over the test rows.

    Attributes:
        rows: How many there are.
        lower: Whether it is better when it is lower.
        over: The score over chosen rows, which may repeat.
    """

    rows: int
    lower: bool
    over: Callable[[IndexArray], float]

    @property
    def value(self) -> float:
        """Over every row once."""
        return self.over(np.arange(self.rows))


@dataclass(frozen=True)
class Gain:
    """An ensemble against the best single model, over the same rows.

    Attributes:
        single, ensemble: Both scores.
        gain: Their difference; positive is better, whichever way the score goes.
        low, high: Its 95 % interval, by a paired bootstrap over rows.
    """

    single: float
    ensemble: float
    gain: float
    low: float
    high: float


def paired_gain(single: RowMetric, ensemble: RowMetric, draws: int = BOOTSTRAP_DRAWS) -> Gain:
    """The gain and its interval: each draw scores both on the same rows (Efron and Tibshirani 1993, chapter 16)."""
    sign = -1.0 if ensemble.lower else 1.0
    dice = np.random.default_rng(0)
    found = []
    for _ in range(draws):
        chosen = dice.integers(0, ensemble.rows, ensemble.rows)
        found.append(sign * (ensemble.over(chosen) - single.over(chosen)))
    low, high = percentile_interval(found)
    return Gain(single.value, ensemble.value, sign * (ensemble.value - single.value), low, high)


def ratio_metric(above: FloatArray, below: FloatArray | None = None, *, lower: bool) -> RowMetric:
    """A sum over rows divided by another one, which counts rows unless given: a mean by row or by token."""
    under = np.ones(len(above)) if below is None else below
    return RowMetric(len(above), lower, lambda chosen: float(above[chosen].sum() / max(under[chosen].sum(), 1e-300)))


def class_metrics(log_chances: FloatArray, wanted: IndexArray) -> dict[str, RowMetric]:
    """Loss, accuracy and macro F1 of one label a row: log-probabilities (N, C) against class indices (N,)."""
    width = log_chances.shape[1]
    guessed = log_chances.argmax(axis=1)
    cells = wanted * width + guessed

    def macro(chosen: IndexArray) -> float:
        table = np.bincount(cells[chosen], minlength=width * width).reshape(width, width)
        below = table.sum(axis=0) + table.sum(axis=1)
        return float(np.divide(2.0 * table.diagonal(), below, out=np.zeros(width), where=below > 0).mean())

    return {
        "accuracy": ratio_metric((guessed == wanted).astype(np.float64), lower=False),
        "f1": RowMetric(len(wanted), False, macro),
        "loss": ratio_metric(-log_chances[np.arange(len(wanted)), wanted], lower=True),
    }


def multilabel_metrics(logits: FloatArray, wanted: IndexArray, threshold: float) -> dict[str, RowMetric]:
    """Loss, accuracy of whole sets and macro F1 of several labels a row: logits (N, C) against 0 and 1, (N, C)."""
    yes = (1 / (1 + np.exp(-logits.astype(np.float32))) >= threshold).astype(np.float64)
    hits, below = yes * wanted, yes + wanted

    def macro(chosen: IndexArray) -> float:
        under = below[chosen].sum(axis=0)
        return float(np.divide(2 * hits[chosen].sum(axis=0), under, out=np.zeros(len(under)), where=under > 0).mean())

    losses = np.logaddexp(0, np.where(wanted > 0, -logits, logits)).mean(axis=1)
    return {
        "accuracy": ratio_metric((yes == wanted).all(axis=1).astype(np.float64), lower=False),
        "f1": RowMetric(len(wanted), False, macro),
        "loss": ratio_metric(losses, lower=True),
    }


def regression_metrics(said: FloatArray, wanted: FloatArray) -> dict[str, RowMetric]:
    """Squared and absolute error and Pearson's correlation, means over targets: (N, C) in the user's units."""

    def pearson(chosen: IndexArray) -> float:
        left, right = said[chosen] - said[chosen].mean(axis=0), wanted[chosen] - wanted[chosen].mean(axis=0)
        below = np.linalg.norm(left, axis=0) * np.linalg.norm(right, axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(((left * right).sum(axis=0) / below).mean())

    return {
        "mse": ratio_metric(((said - wanted) ** 2).mean(axis=1), lower=True),
        "mae": ratio_metric(np.abs(said - wanted).mean(axis=1), lower=True),
        "pearson": RowMetric(len(said), False, pearson),
    }


def answer_metrics(predictions: Sequence[Mapping[str, Any]]) -> dict[str, RowMetric]:
    """Scores of generated answers, means over the rows that were answered."""
    rows = [row for row in predictions if "exact_match" in row]
    if not rows:
        return {}
    found = {name: ratio_metric(np.array([float(row[name]) for row in rows]), lower=False) for name in ANSWER_METRICS}
    if all("choice" in row for row in rows):
        found["accuracy"] = ratio_metric(np.array([float(row["choice"] == row["label"]) for row in rows]), lower=False)
    return found


@dataclass
class SplitEvaluation:
    """Of one model, or several as one, on one split.

    Attributes:
        scores: By bare name, as training's own test pass gives them.
        measures: The same, computable over any rows.
        tables: Confusion matrix and the like.
        predictions: One dict per row.
    """

    scores: dict[str, float]
    measures: dict[str, RowMetric]
    tables: dict[str, Any] = field(default_factory=dict)
    predictions: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class EnsembleResult:
    """An ensemble, fitted on validation and judged once on test.

    Attributes:
        names: Of the members.
        weights: Of the members; None where the method has none.
        best: The model that validation calls the best single one.
        validation, test: Of the ensemble.
        gains: Against the best single model on test, by score.
        facts: What else was fitted or measured.
    """

    task: Task
    names: list[str]
    weights: list[float] | None
    best: str
    validation: SplitEvaluation
    test: SplitEvaluation
    gains: dict[str, Gain]
    facts: dict[str, Any] = field(default_factory=dict)


def index_of_best(values: list[float], *, lower: bool) -> int:
    """Place of the best value; the first of equals."""
    signed = values if lower else [-value for value in values]
    return min(range(len(signed)), key=lambda place: signed[place])


def primary_metric(monitor: str, measures: dict[str, RowMetric]) -> str:
    """The score that models are compared by: the one that training followed, where rows give it."""
    bare = monitor.partition("/")[2]
    return bare if bare in measures else next(iter(measures))
