"""Ensembles of models for labels and numbers: their outputs are combined, row by row.

Shape letters: K members, N rows, C classes or targets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, log_softmax, logit, softmax

from tunelab.data.examples import Micro
from tunelab.ensemble.combine import disagreement, mean
from tunelab.ensemble.evaluated import Evaluated
from tunelab.ensemble.measures import Measure, class_measures, label_measures, number_measures
from tunelab.ensemble.outputs import Outputs
from tunelab.tasks.base import Record, Task
from tunelab.tasks.classification import Classification
from tunelab.tasks.regression import Regression

Figures = NDArray[np.float64]
TINY = 1e-12  # smallest probability whose logarithm is taken


@dataclass
class Kind:
    """How outputs of a task are read, combined and scored.

    Attributes:
        task: Of the first member; its scale is that of the ensemble.
        tasks: Of every member: numbers are standardised by each in its own way.
    """

    task: Task
    tasks: Sequence[Task]

    @property
    def several(self) -> bool:
        """Whether a row can have any number of labels."""
        return isinstance(self.task, Classification) and self.task.multilabel

    @property
    def numbers(self) -> bool:
        """Whether numbers are learned."""
        return isinstance(self.task, Regression)

    def spoken(self, said: Sequence[Outputs]) -> Figures:
        """Probabilities, or numbers in the scale of the first member: (K, N, C)."""
        if self.numbers:
            return np.stack([self.rescaled(task, one.logits) for task, one in zip(self.tasks, said, strict=True)])
        table = np.stack([one.logits for one in said])
        found: Figures = expit(table) if self.several else softmax(table, axis=2)
        return found

    def rescaled(self, task: Task, logits: Figures) -> Figures:
        """Standardised numbers of one member in the scale of the first."""
        assert isinstance(task, Regression) and isinstance(self.task, Regression)
        own: Figures = logits * np.array(task.std) + np.array(task.mean)
        found: Figures = (own - np.array(self.task.mean)) / np.array(self.task.std)
        return found

    def logits(self, combined: Figures) -> Figures:
        """Probabilities, or numbers, as logits that the task reads: (N, C)."""
        if self.numbers:
            return combined
        kept = np.clip(combined, TINY, 1 - TINY) if self.several else np.maximum(combined, TINY)
        found: Figures = logit(kept) if self.several else np.log(kept)
        return found

    def wanted(self, said: Outputs) -> NDArray[Any]:
        """What is right: class indices (N,), 0 and 1 (N, C), or numbers in the scale of the first member (N, C)."""
        found: NDArray[Any] = said.targets.numpy()
        return found.astype(np.float64) if self.numbers else found.astype(np.int64)

    def measures(self, logits: Figures, wanted: NDArray[Any]) -> dict[str, Measure]:
        """Scores over any rows."""
        if isinstance(self.task, Regression):
            std, shift = np.array(self.task.std), np.array(self.task.mean)
            return number_measures(logits * std + shift, wanted * std + shift)
        if isinstance(self.task, Classification) and self.task.multilabel:
            return label_measures(logits, wanted, self.task.threshold)
        return class_measures(log_softmax(logits, axis=1), wanted)


def cost(kind: Kind, said: Figures, wanted: NDArray[Any]) -> Callable[[Sequence[int]], float]:
    """The loss on validation of the mean of some members, by which a selection is made; lower is better."""
    name = "mse" if kind.numbers else "loss"
    return lambda chosen: kind.measures(kind.logits(mean(said[list(chosen)])), wanted)[name].value


def as_micro(said: Outputs) -> Micro:
    """The rows of a split as one micro-batch, without their texts, which scores do not read."""
    count = len(said.rows)
    return Micro(
        torch.zeros(count, 1, dtype=torch.int64), torch.ones(count, dtype=torch.int64), said.targets, said.rows
    )


def scored(task: Task, logits: Figures, said: Outputs) -> tuple[dict[str, float], dict[str, Any]]:
    """The scores and tables of training's own test pass for combined outputs."""
    scores = task.scores()
    scores.update(torch.from_numpy(logits), as_micro(said))
    return {name: float(value) for name, value in scores.compute().items()}, scores.report()


def evaluated(kind: Kind, logits: Figures, said: Outputs, records: Sequence[Record]) -> Evaluated:
    """Scores, tables and predictions of combined outputs (N, C) on a split.

    Args:
        kind: Of the outputs.
        logits: As a rule combined them.
        said: What one of the members said there: it knows rows and targets.
        records: Of the split.
    """
    scores, tables = scored(kind.task, logits, said)
    predictions = predicted(kind.task, logits, said, records)
    return Evaluated(scores, kind.measures(logits, kind.wanted(said)), tables, predictions)


def predicted(task: Task, logits: Figures, said: Outputs, records: Sequence[Record]) -> list[dict[str, Any]]:
    """Lines of predictions.jsonl for combined outputs."""
    asked = [records[row] for row in said.rows.tolist()]
    nobody: Any = None  # no model is asked: the logits are there
    return task.predictions(nobody, as_micro(said), torch.from_numpy(logits), asked)


def diversity(kind: Kind, said: Figures) -> float:
    """Share of test rows on which two members decide differently; nan for numbers."""
    if kind.numbers:
        return float("nan")
    if isinstance(kind.task, Classification) and kind.several:
        yes = said >= kind.task.threshold
        pairs = [(one != other).mean() for at, one in enumerate(yes) for other in yes[at + 1 :]]
        return float(np.mean(pairs)) if pairs else float("nan")
    return disagreement(said)
