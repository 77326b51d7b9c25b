"""Scores as sums over rows, so that any choice of rows can be scored: the ground of paired intervals.  Pure.

Shape letters: N rows, C classes or targets.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.effects.intervals import DRAWS, between

Figures = NDArray[np.float64]
Rows = NDArray[np.int64]
TEXTS = ("exact_match", "token_f1", "rougeL")


@dataclass(frozen=True)
class Measure:
    """A score of one model over the test rows.

    Attributes:
        rows: How many there are.
        lower: Whether it is better when it is lower.
        over: The score over chosen rows, which may repeat.
    """

    rows: int
    lower: bool
    over: Callable[[Rows], float]

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


def gain(single: Measure, ensemble: Measure, draws: int = DRAWS) -> Gain:
    """The gain and its interval: each draw scores both on the same rows (Efron and Tibshirani 1993, chapter 16)."""
    sign = -1.0 if ensemble.lower else 1.0
    dice = np.random.default_rng(0)
    found = []
    for _ in range(draws):
        chosen = dice.integers(0, ensemble.rows, ensemble.rows)
        found.append(sign * (ensemble.over(chosen) - single.over(chosen)))
    low, high = between(found)
    return Gain(single.value, ensemble.value, sign * (ensemble.value - single.value), low, high)


def ratio(above: Figures, below: Figures | None = None, *, lower: bool) -> Measure:
    """A sum over rows divided by another one, which counts rows unless given: a mean by row or by token."""
    under = np.ones(len(above)) if below is None else below
    return Measure(len(above), lower, lambda chosen: float(above[chosen].sum() / max(under[chosen].sum(), 1e-300)))


def class_measures(log_chances: Figures, wanted: Rows) -> dict[str, Measure]:
    """Loss, accuracy and macro F1 of one label a row: log-probabilities (N, C) against class indices (N,)."""
    width = log_chances.shape[1]
    guessed = log_chances.argmax(axis=1)
    cells = wanted * width + guessed

    def macro(chosen: Rows) -> float:
        table = np.bincount(cells[chosen], minlength=width * width).reshape(width, width)
        below = table.sum(axis=0) + table.sum(axis=1)
        return float(np.divide(2.0 * table.diagonal(), below, out=np.zeros(width), where=below > 0).mean())

    return {
        "accuracy": ratio((guessed == wanted).astype(np.float64), lower=False),
        "f1": Measure(len(wanted), False, macro),
        "loss": ratio(-log_chances[np.arange(len(wanted)), wanted], lower=True),
    }


def label_measures(logits: Figures, wanted: Rows, threshold: float) -> dict[str, Measure]:
    """Loss, accuracy of whole sets and macro F1 of several labels a row: logits (N, C) against 0 and 1, (N, C)."""
    yes = (1 / (1 + np.exp(-logits.astype(np.float32))) >= threshold).astype(np.float64)
    hits, below = yes * wanted, yes + wanted

    def macro(chosen: Rows) -> float:
        under = below[chosen].sum(axis=0)
        return float(np.divide(2 * hits[chosen].sum(axis=0), under, out=np.zeros(len(under)), where=under > 0).mean())

    losses = np.logaddexp(0, np.where(wanted > 0, -logits, logits)).mean(axis=1)
    return {
        "accuracy": ratio((yes == wanted).all(axis=1).astype(np.float64), lower=False),
        "f1": Measure(len(wanted), False, macro),
        "loss": ratio(losses, lower=True),
    }


def number_measures(said: Figures, wanted: Figures) -> dict[str, Measure]:
    """Squared and absolute error and Pearson's correlation, means over targets: (N, C) in the user's units."""

    def pearson(chosen: Rows) -> float:
        left, right = said[chosen] - said[chosen].mean(axis=0), wanted[chosen] - wanted[chosen].mean(axis=0)
        below = np.linalg.norm(left, axis=0) * np.linalg.norm(right, axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(((left * right).sum(axis=0) / below).mean())

    return {
        "mse": ratio(((said - wanted) ** 2).mean(axis=1), lower=True),
        "mae": ratio(np.abs(said - wanted).mean(axis=1), lower=True),
        "pearson": Measure(len(said), False, pearson),
    }


def answer_measures(predictions: Sequence[Mapping[str, Any]]) -> dict[str, Measure]:
    """Scores of generated answers, means over the rows that were answered."""
    rows = [row for row in predictions if "exact_match" in row]
    if not rows:
        return {}
    found = {name: ratio(np.array([float(row[name]) for row in rows]), lower=False) for name in TEXTS}
    if all("choice" in row for row in rows):
        found["accuracy"] = ratio(np.array([float(row["choice"] == row["label"]) for row in rows]), lower=False)
    return found
