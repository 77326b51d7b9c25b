"""Ensembles of classifiers and regressors: outputs combined row by row, by a rule fitted on validation.

Shape letters: K members, N rows, C classes or targets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, log_softmax, logit, softmax

from tunelab.data.data_sources import DataSplits
from tunelab.data.examples import MicroBatch
from tunelab.data.protocols import Record
from tunelab.ensemble.combination import (
    StackingModel,
    class_loss,
    disagreement,
    fit_stacking,
    fit_temperature,
    forward_selection,
    least_squares_weights,
    majority_vote,
    mixture_weights,
    multilabel_loss,
    multilabel_vote,
    squared_loss,
    temperature_calibration_error,
    weighted_mean,
)
from tunelab.ensemble.ensemble_members import (
    MemberSource,
    ModelOutputs,
    check_same_rows,
    check_same_task,
    model_outputs,
    read_run_splits,
)
from tunelab.ensemble.ensemble_scores import (
    EnsembleResult,
    RowMetric,
    SplitEvaluation,
    class_metrics,
    index_of_best,
    multilabel_metrics,
    paired_gain,
    primary_metric,
    regression_metrics,
)
from tunelab.tasks.base import Task
from tunelab.tasks.classification import Classification
from tunelab.tasks.regression import Regression
from tunelab.training.load_run import TrainedRun
from tunelab.training.trainer import resolve_monitor

FloatArray = NDArray[np.float64]
MIN_PROBABILITY = 1e-12  # smallest probability whose logarithm is taken


@dataclass
class OutputKind:
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

    def spoken(self, said: Sequence[ModelOutputs]) -> FloatArray:
        """Probabilities, or numbers in the scale of the first member: (K, N, C)."""
        if self.numbers:
            return np.stack([self.rescaled(task, one.logits) for task, one in zip(self.tasks, said, strict=True)])
        table = np.stack([one.logits for one in said])
        found: FloatArray = expit(table) if self.several else softmax(table, axis=2)
        return found

    def rescaled(self, task: Task, logits: FloatArray) -> FloatArray:
        """Standardised numbers of one member in the scale of the first."""
        assert isinstance(task, Regression) and isinstance(self.task, Regression)
        own: FloatArray = logits * np.array(task.std) + np.array(task.mean)
        found: FloatArray = (own - np.array(self.task.mean)) / np.array(self.task.std)
        return found

    def logits(self, combined: FloatArray) -> FloatArray:
        """Probabilities, or numbers, as logits that the task reads: (N, C)."""
        if self.numbers:
            return combined
        kept = (
            np.clip(combined, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
            if self.several
            else np.maximum(combined, MIN_PROBABILITY)
        )
        found: FloatArray = logit(kept) if self.several else np.log(kept)
        return found

    def wanted(self, said: ModelOutputs) -> NDArray[Any]:
        """What is right: class indices (N,), 0 and 1 (N, C), or numbers in the scale of the first member (N, C)."""
        found: NDArray[Any] = said.targets.numpy()
        return found.astype(np.float64) if self.numbers else found.astype(np.int64)

    def measures(self, logits: FloatArray, wanted: NDArray[Any]) -> dict[str, RowMetric]:
        """Scores over any rows."""
        if isinstance(self.task, Regression):
            std, shift = np.array(self.task.std), np.array(self.task.mean)
            return regression_metrics(logits * std + shift, wanted * std + shift)
        if isinstance(self.task, Classification) and self.task.multilabel:
            return multilabel_metrics(logits, wanted, self.task.threshold)
        return class_metrics(log_softmax(logits, axis=1), wanted)


def selection_loss(kind: OutputKind, said: FloatArray, wanted: NDArray[Any]) -> Callable[[Sequence[int]], float]:
    """The loss on validation of the mean of some members, by which a selection is made; lower is better."""
    name = "mse" if kind.numbers else "loss"
    return lambda chosen: kind.measures(kind.logits(weighted_mean(said[list(chosen)])), wanted)[name].value


def as_micro_batch(said: ModelOutputs) -> MicroBatch:
    """The rows of a split as one micro-batch, without their texts, which scores do not read."""
    count = len(said.rows)
    return MicroBatch(
        torch.zeros(count, 1, dtype=torch.int64), torch.ones(count, dtype=torch.int64), said.targets, said.rows
    )


def score_outputs(task: Task, logits: FloatArray, said: ModelOutputs) -> tuple[dict[str, float], dict[str, Any]]:
    """The scores and tables of training's own test pass for combined outputs."""
    scores = task.scores()
    scores.update(torch.from_numpy(logits), as_micro_batch(said))
    return {name: float(value) for name, value in scores.compute().items()}, scores.report()


def evaluate_outputs(
    kind: OutputKind, logits: FloatArray, said: ModelOutputs, records: Sequence[Record]
) -> SplitEvaluation:
    """Scores, tables and predictions of combined outputs (N, C) on a split.

    Args:
        kind: Of the outputs.
        logits: As a rule combined them.
        said: What one of the members said there: it knows rows and targets.
        records: Of the split.
    """
    scores, tables = score_outputs(kind.task, logits, said)
    predictions = output_predictions(kind.task, logits, said, records)
    return SplitEvaluation(scores, kind.measures(logits, kind.wanted(said)), tables, predictions)


def output_predictions(
    task: Task, logits: FloatArray, said: ModelOutputs, records: Sequence[Record]
) -> list[dict[str, Any]]:
    """Lines of predictions.jsonl for combined outputs."""
    asked = [records[row] for row in said.rows.tolist()]
    nobody: Any = None  # no model is asked: the logits are there
    return task.predictions(nobody, as_micro_batch(said), torch.from_numpy(logits), asked)


def output_disagreement(kind: OutputKind, said: FloatArray) -> float:
    """Share of test rows on which two members decide differently; nan for numbers."""
    if kind.numbers:
        return float("nan")
    if isinstance(kind.task, Classification) and kind.several:
        yes = said >= kind.task.threshold
        pairs = [(one != other).mean() for at, one in enumerate(yes) for other in yes[at + 1 :]]
        return float(np.mean(pairs)) if pairs else float("nan")
    return disagreement(said)


@dataclass
class CombinationRule:
    """How outputs of members become outputs of the ensemble.

    Attributes:
        combine: Spoken outputs (K, N, C) to logits (N, C).
        weights: Of the members, where there are any.
        stack: The small model on top, where there is one.
    """

    combine: Callable[[FloatArray], FloatArray]
    weights: list[float] | None = None
    stack: StackingModel | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What was fitted beside the weights, plain values."""
        if self.stack is None:
            return {}
        top = self.stack
        return {"stack": {"weights": top.weights.tolist(), "bias": top.bias.tolist(), "strength": top.strength}}


def fit_rule(method: str, kind: OutputKind, said: FloatArray, wanted: NDArray[Any]) -> CombinationRule:
    """The rule of a method, fitted on validation.

    Args:
        method: soft, hard, weighted or stack.
        kind: Of the outputs.
        said: Spoken outputs on validation, (K, N, C).
        wanted: What is right there.
    """
    if method == "hard":
        return make_rule(kind, None, None)
    if method == "soft":
        return make_rule(kind, [1 / len(said)] * len(said), None)
    if method == "weighted":
        return make_rule(kind, fit_weights(kind, said, wanted).tolist(), None)
    loss = squared_loss if kind.numbers else multilabel_loss if kind.several else class_loss
    right = wanted.astype(np.float64) if kind.several else wanted
    return make_rule(kind, None, fit_stacking(stacking_inputs(kind, said), right, loss))


def make_rule(kind: OutputKind, weights: Sequence[float] | None, stack: StackingModel | None) -> CombinationRule:
    """The rule out of what was fitted: a weighted mean, a small model on top, or with neither a vote."""
    if stack is not None:
        top = stack
        return CombinationRule(lambda table: top(stacking_inputs(kind, table)), None, top)
    if weights is not None:
        shares = list(weights)
        return CombinationRule(lambda table: kind.logits(weighted_mean(table, shares)), shares)
    return CombinationRule(lambda table: kind.logits(hard_vote(kind, table)))


def stacking_inputs(kind: OutputKind, said: FloatArray) -> FloatArray:
    """Spoken outputs as a stack takes them: log-probabilities, logits, or numbers, (K, N, C)."""
    return np.stack([kind.logits(one) for one in said])


def hard_vote(kind: OutputKind, said: FloatArray) -> FloatArray:
    """One vote a member; of numbers the median."""
    if kind.numbers:
        found: FloatArray = np.median(said, axis=0)
        return found
    if isinstance(kind.task, Classification) and kind.several:
        return multilabel_vote(said, kind.task.threshold)
    return majority_vote(said)


def fit_weights(kind: OutputKind, said: FloatArray, wanted: NDArray[Any]) -> FloatArray:
    """Weights of a mean that fit validation best: by likelihood, for numbers by squared error; (K,)."""
    if kind.numbers:
        return least_squares_weights(said.reshape(len(said), -1), wanted.ravel())
    if kind.several:
        likely = np.where(wanted > 0, said, 1 - said)  # (K, N, C)
        return mixture_weights(likely.reshape(len(said), -1).T)
    return mixture_weights(said[:, np.arange(len(wanted)), wanted].T)


@dataclass
class CollectedOutputs:
    """The members and what they say of the validation rows."""

    places: list[MemberSource]
    tasks: list[Task]
    sources: DataSplits
    said: list[ModelOutputs]
    first: TrainedRun


def collect_outputs(places: Sequence[MemberSource]) -> CollectedOutputs:
    """Restore one model after the other and ask it of the validation rows.

    Raises:
        ConfigError, DataError: If they do not belong together.
    """
    heard: CollectedOutputs | None = None
    for place in places:
        trained = place.restore()
        if heard is None:
            heard = CollectedOutputs([], [], read_run_splits(trained), [], trained)
        check_same_task([heard.first, trained], [heard.first.folder.root.name, place.name])
        mine, first = trained.settings, heard.first.settings
        if mine.data != first.data or mine.seed != first.seed:
            check_same_rows(heard.sources, read_run_splits(trained), (str(heard.first.folder.root), place.name))
        heard.places.append(place)
        heard.tasks.append(trained.task)
        heard.said.append(model_outputs(trained, heard.sources.splits["validation"]))
    assert heard is not None
    return heard


def build_label_ensemble(
    places: Sequence[MemberSource], method: str, select: int | None
) -> tuple[EnsembleResult, TrainedRun, DataSplits]:
    """Fit on validation, judge on test.

    Args:
        places: Where the models lie.
        method: soft, hard, weighted or stack.
        select: Members at most, chosen among all for what they add to each other; None takes all.

    Returns:
        The result, the first member, and the splits.
    """
    heard = collect_outputs(places)
    kind = OutputKind(heard.tasks[0], heard.tasks)
    said, wanted = kind.spoken(heard.said), kind.wanted(heard.said[0])
    singles = [kind.measures(kind.logits(one), wanted) for one in said]
    name = primary_metric(resolve_monitor(heard.first.settings, kind.task)[0], singles[0])
    values = [measures[name].value for measures in singles]
    best = index_of_best(values, lower=singles[0][name].lower)
    loss = selection_loss(kind, said, wanted)
    chosen = (
        list(range(len(said)))
        if select is None
        else forward_selection([loss([k]) for k in range(len(said))], loss, select)
    )
    inside = OutputKind(kind.task, [heard.tasks[k] for k in chosen])
    rule = fit_rule(method, inside, said[chosen], wanted)

    asked = [*chosen, *([best] if best not in chosen else [])]
    tested = [model_outputs(heard.places[k].restore(), heard.sources.splits["test"]) for k in asked]
    table = OutputKind(kind.task, [heard.tasks[k] for k in asked]).spoken(tested)
    alone = OutputKind(kind.task, [heard.tasks[best]]).logits(table[asked.index(best)])
    right = kind.wanted(tested[0])
    together = rule.combine(table[: len(chosen)])
    rows = heard.sources.splits["test"].rows
    test = evaluate_outputs(kind, together, tested[0], rows)
    own = rule.combine(said[chosen])
    validation = SplitEvaluation(score_outputs(kind.task, own, heard.said[0])[0], kind.measures(own, wanted))
    before = kind.measures(alone, right)
    facts: dict[str, Any] = {
        **rule.facts,
        "primary": name,
        "validation_of_singles": {place.name: value for place, value in zip(places, values, strict=True)},
        "disagreement": output_disagreement(inside, table[: len(chosen)]),
    }
    if isinstance(kind.task, Classification):
        singly = kind.logits(said[best])
        facts["calibration"] = {
            "ensemble": calibration_facts(kind.task, own, wanted, together, right),
            "best_single": calibration_facts(kind.task, singly, wanted, alone, right),
        }
    gains = {score: paired_gain(before[score], test.measures[score]) for score in before}
    names = [heard.places[k].name for k in chosen]
    result = EnsembleResult(kind.task, names, rule.weights, heard.places[best].name, validation, test, gains, facts)
    return result, heard.first, heard.sources


def calibration_facts(
    task: Classification, fitted: FloatArray, known: NDArray[np.int64], judged: FloatArray, right: NDArray[np.int64]
) -> dict[str, float]:
    """The temperature that fits validation, and the expected calibration error on test without and with it."""
    several = task.multilabel
    temperature = fit_temperature(fitted, known, several=several)
    errors = [
        temperature_calibration_error(judged, right, value, several=several, threshold=task.threshold)
        for value in (1.0, temperature)
    ]
    return {"temperature": temperature, "ece": errors[0], "ece_calibrated": errors[1]}
