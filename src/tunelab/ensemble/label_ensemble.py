"""Ensembles of models that give labels or numbers: outputs combined row by row, by a rule fitted on validation.

Shape letters: K members, N rows, C classes or targets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, log_softmax, logit, softmax

from tunelab.analysis.row_scores import RowScore, class_scores, multilabel_scores, regression_scores
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
from tunelab.ensemble.ensemble_members import MemberSource, check_same_rows, check_same_task, read_run_splits
from tunelab.ensemble.ensemble_scores import EnsembleResult, index_of_best, paired_gains, primary_score
from tunelab.tasks.base import Task
from tunelab.tasks.classification import Classification
from tunelab.tasks.metrics.own_metrics import full_scores
from tunelab.tasks.regression import Regression
from tunelab.training.evaluate import EvalResult, ModelOutputs
from tunelab.training.evaluate_run import model_outputs
from tunelab.training.load_run import TrainedRun
from tunelab.training.trainer import resolve_monitor

FloatArray = NDArray[np.float64]
MIN_PROBABILITY = 1e-12  # smallest probability whose logarithm is taken


@dataclass
class OutputKind:
    """Converts outputs of a task to probabilities or numbers that can be combined, and scores them.

    Attributes:
        task: Of the first member; its scale is that of the ensemble.
        tasks: Of every member: numbers are standardised by each in its own way.
    """

    task: Task
    tasks: Sequence[Task]

    @property
    def multilabel(self) -> bool:
        """Whether a row can have any number of labels."""
        return isinstance(self.task, Classification) and self.task.multilabel

    @property
    def is_regression(self) -> bool:
        """Whether numbers are learned."""
        return isinstance(self.task, Regression)

    def to_predictions(self, outputs: Sequence[ModelOutputs]) -> FloatArray:
        """Probabilities, or numbers in the scale of the first member: (K, N, C)."""
        logits = [one.logits.numpy() for one in outputs]
        if self.is_regression:
            return np.stack([self.to_ensemble_scale(*pair) for pair in zip(self.tasks, logits, strict=True)])
        table = np.stack(logits)
        probabilities: FloatArray = expit(table) if self.multilabel else softmax(table, axis=2)
        return probabilities

    def to_ensemble_scale(self, task: Task, logits: FloatArray) -> FloatArray:
        """Standardised numbers of one member in the scale of the first."""
        assert isinstance(task, Regression) and isinstance(self.task, Regression)
        numbers: FloatArray = logits * np.array(task.std) + np.array(task.mean)
        rescaled: FloatArray = (numbers - np.array(self.task.mean)) / np.array(self.task.std)
        return rescaled

    def to_logits(self, combined: FloatArray) -> FloatArray:
        """Probabilities, or numbers, as logits that the task reads: (N, C)."""
        if self.is_regression:
            return combined
        if self.multilabel:
            logits: FloatArray = logit(np.clip(combined, MIN_PROBABILITY, 1 - MIN_PROBABILITY))
            return logits
        return np.log(np.maximum(combined, MIN_PROBABILITY))

    def targets(self, outputs: ModelOutputs) -> NDArray[Any]:
        """True class indices (N,), 0 and 1 (N, C), or numbers in the scale of the first member (N, C)."""
        return outputs.targets.numpy().astype(np.float64 if self.is_regression else np.int64)

    def row_scores(self, logits: FloatArray, targets: NDArray[Any]) -> dict[str, RowScore]:
        """Scores over any rows, by bare name."""
        if isinstance(self.task, Regression):
            std, shift = np.array(self.task.std), np.array(self.task.mean)
            return regression_scores(logits * std + shift, targets * std + shift)
        if isinstance(self.task, Classification) and self.task.multilabel:
            return multilabel_scores(logits, targets, self.task.threshold)
        return class_scores(log_softmax(logits, axis=1), targets)


def selection_loss(
    kind: OutputKind, predictions: FloatArray, targets: NDArray[Any]
) -> Callable[[Sequence[int]], float]:
    """The loss on validation of the mean of some members, by which a selection is made; lower is better."""
    name = "mse" if kind.is_regression else "loss"
    return lambda chosen: kind.row_scores(kind.to_logits(weighted_mean(predictions[list(chosen)])), targets)[name].value


def as_micro_batch(outputs: ModelOutputs) -> MicroBatch:
    """The rows of a split as one micro-batch, without their texts, which scores do not read."""
    count = len(outputs.rows)
    return MicroBatch(
        torch.zeros(count, 1, dtype=torch.int64), torch.ones(count, dtype=torch.int64), outputs.targets, outputs.rows
    )


def score_outputs(task: Task, logits: FloatArray, outputs: ModelOutputs) -> tuple[dict[str, float], dict[str, Any]]:
    """The scores and tables of training's own test pass for combined outputs."""
    scores = full_scores(task)
    scores.update(torch.from_numpy(logits), as_micro_batch(outputs))
    return {name: float(value) for name, value in scores.compute().items()}, scores.report()


def evaluate_outputs(
    kind: OutputKind, logits: FloatArray, outputs: ModelOutputs, records: Sequence[Record]
) -> EvalResult:
    """Scores, tables and predictions of combined outputs (N, C) on a split.

    Args:
        kind: Of the outputs.
        logits: As a rule combined them.
        outputs: Of one of the members there: it knows rows and targets.
        records: Of the split.
    """
    scores, tables = score_outputs(kind.task, logits, outputs)
    predictions = output_predictions(kind.task, logits, outputs, records)
    return EvalResult(scores, tables, predictions, kind.row_scores(logits, kind.targets(outputs)))


def output_predictions(
    task: Task, logits: FloatArray, outputs: ModelOutputs, records: Sequence[Record]
) -> list[dict[str, Any]]:
    """Lines of predictions.jsonl for combined outputs."""
    rows = [records[row] for row in outputs.rows.tolist()]
    no_model: Any = None  # none is needed: the logits are there
    return task.predictions(no_model, as_micro_batch(outputs), torch.from_numpy(logits), rows)


def output_disagreement(kind: OutputKind, predictions: FloatArray) -> float:
    """Share of test rows on which two members decide differently; nan for numbers."""
    if kind.is_regression:
        return float("nan")
    if isinstance(kind.task, Classification) and kind.multilabel:
        yes = predictions >= kind.task.threshold
        pairs = [(one != other).mean() for at, one in enumerate(yes) for other in yes[at + 1 :]]
        return float(np.mean(pairs)) if pairs else float("nan")
    return disagreement(predictions)


@dataclass
class CombinationRule:
    """A rule that combines outputs of members into outputs of the ensemble.

    Attributes:
        combine: Predictions (K, N, C) to logits (N, C).
        weights: Of the members, where there are any.
        stack: The small model on top, where there is one.
    """

    combine: Callable[[FloatArray], FloatArray]
    weights: list[float] | None = None
    stack: StackingModel | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """Fitted values beside the weights, as plain values."""
        if self.stack is None:
            return {}
        top = self.stack
        return {"stack": {"weights": top.weights.tolist(), "bias": top.bias.tolist(), "strength": top.strength}}


def fit_rule(method: str, kind: OutputKind, predictions: FloatArray, targets: NDArray[Any]) -> CombinationRule:
    """The rule of a method, fitted on validation.

    Args:
        method: soft, hard, weighted or stack.
        kind: Of the outputs.
        predictions: Of the members on validation, (K, N, C).
        targets: Of these rows.
    """
    if method == "hard":
        return make_rule(kind, None, None)
    if method == "soft":
        return make_rule(kind, [1 / len(predictions)] * len(predictions), None)
    if method == "weighted":
        return make_rule(kind, fit_weights(kind, predictions, targets).tolist(), None)
    loss = squared_loss if kind.is_regression else multilabel_loss if kind.multilabel else class_loss
    labels = targets.astype(np.float64) if kind.multilabel else targets
    return make_rule(kind, None, fit_stacking(stacking_inputs(kind, predictions), labels, loss))


def make_rule(kind: OutputKind, weights: Sequence[float] | None, stack: StackingModel | None) -> CombinationRule:
    """The rule out of what was fitted: a weighted mean, a small model on top, or with neither a vote."""
    if stack is not None:
        top = stack
        return CombinationRule(lambda table: top(stacking_inputs(kind, table)), None, top)
    if weights is not None:
        shares = list(weights)
        return CombinationRule(lambda table: kind.to_logits(weighted_mean(table, shares)), shares)
    return CombinationRule(lambda table: kind.to_logits(hard_vote(kind, table)))


def stacking_inputs(kind: OutputKind, predictions: FloatArray) -> FloatArray:
    """Predictions as a stack takes them: log-probabilities, logits, or numbers, (K, N, C)."""
    return np.stack([kind.to_logits(one) for one in predictions])


def hard_vote(kind: OutputKind, predictions: FloatArray) -> FloatArray:
    """One vote a member; of numbers the median."""
    if kind.is_regression:
        median: FloatArray = np.median(predictions, axis=0)
        return median
    if isinstance(kind.task, Classification) and kind.multilabel:
        return multilabel_vote(predictions, kind.task.threshold)
    return majority_vote(predictions)


def fit_weights(kind: OutputKind, predictions: FloatArray, targets: NDArray[Any]) -> FloatArray:
    """Weights of a mean that fit validation best: by likelihood, for numbers by squared error; (K,)."""
    if kind.is_regression:
        return least_squares_weights(predictions.reshape(len(predictions), -1), targets.ravel())
    if kind.multilabel:
        likelihood = np.where(targets > 0, predictions, 1 - predictions)  # (K, N, C)
        return mixture_weights(likelihood.reshape(len(predictions), -1).T)
    return mixture_weights(predictions[:, np.arange(len(targets)), targets].T)


@dataclass
class ValidationOutputs:
    """The members and their outputs on the validation rows.

    Attributes:
        members: Where they lie.
        tasks: Of each.
        outputs: Of each.
        splits: Validation and test rows, the same for all.
        first: The first member, loaded.
    """

    members: list[MemberSource]
    tasks: list[Task]
    outputs: list[ModelOutputs]
    splits: DataSplits
    first: TrainedRun


def collect_validation_outputs(members: Sequence[MemberSource]) -> ValidationOutputs:
    """Load one model after the other and evaluate it on the validation rows.

    Raises:
        ConfigError, DataError: If they do not belong together.
    """
    collected: ValidationOutputs | None = None
    for member in members:
        trained = member.load()
        if collected is None:
            collected = ValidationOutputs([], [], [], read_run_splits(trained), trained)
        first = collected.first
        check_same_task([first, trained], [first.folder.root.name, member.name])
        if trained.settings.data != first.settings.data or trained.settings.seed != first.settings.seed:
            check_same_rows(collected.splits, read_run_splits(trained), (str(first.folder.root), member.name))
        collected.members.append(member)
        collected.tasks.append(trained.task)
        collected.outputs.append(model_outputs(trained, collected.splits.splits["validation"]))
    assert collected is not None
    return collected


def build_label_ensemble(
    members: Sequence[MemberSource], method: str, select: int | None
) -> tuple[EnsembleResult, TrainedRun, DataSplits]:
    """Fit on validation, evaluate on test.

    Args:
        members: Where the models lie.
        method: soft, hard, weighted or stack.
        select: Members at most, chosen among all for what they add to each other; None takes all.

    Returns:
        The result, the first member, and the splits.
    """
    collected = collect_validation_outputs(members)
    kind = OutputKind(collected.tasks[0], collected.tasks)
    predictions, targets = kind.to_predictions(collected.outputs), kind.targets(collected.outputs[0])
    singles = [kind.row_scores(kind.to_logits(one), targets) for one in predictions]
    primary = primary_score(resolve_monitor(collected.first.settings, kind.task)[0], singles[0])
    values = [scores[primary].value for scores in singles]
    best = index_of_best(values, lower_is_better=singles[0][primary].lower_is_better)
    chosen = list(range(len(predictions)))
    if select is not None:
        loss = selection_loss(kind, predictions, targets)
        chosen = forward_selection([loss([k]) for k in chosen], loss, select)
    chosen_kind = OutputKind(kind.task, [collected.tasks[k] for k in chosen])
    rule = fit_rule(method, chosen_kind, predictions[chosen], targets)

    tested = [*chosen, *([best] if best not in chosen else [])]
    split = collected.splits.splits["test"]
    test_outputs = [model_outputs(collected.members[k].load(), split) for k in tested]
    test_predictions = OutputKind(kind.task, [collected.tasks[k] for k in tested]).to_predictions(test_outputs)
    best_kind = OutputKind(kind.task, [collected.tasks[best]])
    best_logits = best_kind.to_logits(test_predictions[tested.index(best)])
    test_targets = kind.targets(test_outputs[0])
    test_logits = rule.combine(test_predictions[: len(chosen)])
    test = evaluate_outputs(kind, test_logits, test_outputs[0], split.rows)
    own_logits = rule.combine(predictions[chosen])
    own_scores, _ = score_outputs(kind.task, own_logits, collected.outputs[0])
    validation = EvalResult(own_scores, row_scores=kind.row_scores(own_logits, targets))
    facts: dict[str, Any] = {
        **rule.facts,
        "primary": primary,
        "validation_of_singles": {member.name: value for member, value in zip(members, values, strict=True)},
        "disagreement": output_disagreement(chosen_kind, test_predictions[: len(chosen)]),
    }
    if isinstance(kind.task, Classification):
        best_own = kind.to_logits(predictions[best])
        facts["calibration"] = {
            "ensemble": calibration_facts(kind.task, own_logits, targets, test_logits, test_targets),
            "best_single": calibration_facts(kind.task, best_own, targets, best_logits, test_targets),
        }
    gains = paired_gains(kind.row_scores(best_logits, test_targets), test.row_scores)
    names = [collected.members[k].name for k in chosen]
    best_name = collected.members[best].name
    result = EnsembleResult(kind.task, names, rule.weights, best_name, validation, test, gains, facts)
    return result, collected.first, collected.splits


def calibration_facts(
    task: Classification,
    logits: FloatArray,
    targets: NDArray[np.int64],
    test_logits: FloatArray,
    test_targets: NDArray[np.int64],
) -> dict[str, float]:
    """The temperature that fits validation, and the expected calibration error on test without and with it."""
    several = task.multilabel
    temperature = fit_temperature(logits, targets, multilabel=several)
    errors = [
        temperature_calibration_error(test_logits, test_targets, value, multilabel=several, threshold=task.threshold)
        for value in (1.0, temperature)
    ]
    return {"temperature": temperature, "ece": errors[0], "ece_calibrated": errors[1]}
