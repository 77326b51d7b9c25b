"""The result of an ensemble, and its gains over the best single model with paired bootstrap intervals."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunelab.analysis.row_scores import RowScore
from tunelab.analysis.statistics import paired_bootstrap
from tunelab.tasks.base import Task
from tunelab.training.evaluate import EvalResult


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


def paired_gain(single: RowScore, ensemble: RowScore) -> Gain:
    """The gain and its interval: each draw scores both on the same rows (Efron and Tibshirani 1993, chapter 16)."""
    compared = paired_bootstrap(single, ensemble)
    if ensemble.lower_is_better:
        return Gain(compared.first, compared.second, -compared.gain, -compared.high, -compared.low)
    return Gain(compared.first, compared.second, compared.gain, compared.low, compared.high)


def paired_gains(single: Mapping[str, RowScore], ensemble: Mapping[str, RowScore]) -> dict[str, Gain]:
    """The gain in each score."""
    return {name: paired_gain(score, ensemble[name]) for name, score in single.items()}


@dataclass
class EnsembleResult:
    """An ensemble, fitted on validation and evaluated once on test.

    Attributes:
        names: Of the members.
        weights: Of the members; None where the method has none.
        best_single: The model that validation calls the best single one.
        validation, test: Of the ensemble.
        gains: Against the best single model on test, by score.
        facts: What else was fitted or measured.
    """

    task: Task
    names: list[str]
    weights: list[float] | None
    best_single: str
    validation: EvalResult
    test: EvalResult
    gains: dict[str, Gain]
    facts: dict[str, Any] = field(default_factory=dict)


def index_of_best(values: list[float], *, lower_is_better: bool) -> int:
    """Index of the best value; the first of equals."""
    costs = values if lower_is_better else [-value for value in values]
    return min(range(len(costs)), key=lambda index: costs[index])


def primary_score(monitor: str, scores: Mapping[str, RowScore]) -> str:
    """The score that models are compared by: the one that training followed, where rows give it."""
    bare = monitor.partition("/")[2]
    return bare if bare in scores else next(iter(scores))
