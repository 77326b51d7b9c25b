"""What a split says of a model or of an ensemble."""

from dataclasses import dataclass, field
from typing import Any

from tunelab.ensemble.measures import Gain, Measure
from tunelab.tasks.base import Task


@dataclass
class Evaluated:
    """Of one model, or several as one, on one split.

    Attributes:
        scores: By bare name, as training's own test pass gives them.
        measures: The same, computable over any rows.
        tables: Confusion matrix and the like.
        predictions: One dict per row.
    """

    scores: dict[str, float]
    measures: dict[str, Measure]
    tables: dict[str, Any] = field(default_factory=dict)
    predictions: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Result:
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
    validation: Evaluated
    test: Evaluated
    gains: dict[str, Gain]
    facts: dict[str, Any] = field(default_factory=dict)


def place_of_best(values: list[float], *, lower: bool) -> int:
    """Place of the best value; the first of equals."""
    signed = values if lower else [-value for value in values]
    return min(range(len(signed)), key=lambda place: signed[place])


def primary(monitor: str, measures: dict[str, Measure]) -> str:
    """The score that models are compared by: the one that training followed, where rows give it."""
    bare = monitor.partition("/")[2]
    return bare if bare in measures else next(iter(measures))
