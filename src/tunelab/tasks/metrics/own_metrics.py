"""Metrics of one's own: classes of torchmetrics that `metrics.NAME={_target_: ...}` names.

Predictions and targets are gathered whole and in the order of rows, and a metric gets them in one call.  So its value
depends neither on the evaluation batch size nor on the number of processes, whatever its states are.

Shape letters: N rows, C classes or targets.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from inspect import Parameter, isclass, signature
from typing import Any

import torch
from torch import Tensor, distributed
from torchmetrics import Metric
from typing_extensions import override

from tunelab.config.instantiate import import_target
from tunelab.config.schema import SOURCE_NAME, MetricsConfig, TargetConfig
from tunelab.data.examples import MicroBatch
from tunelab.errors import ConfigError, first_line
from tunelab.language.translation import translate
from tunelab.tasks.base import MetricInputs, OwnScores, Scores, Task
from tunelab.tasks.metrics.directions import RUN_METRICS, metric_direction, register_directions

CALL_FAULTS = (TypeError, ValueError, RuntimeError, IndexError, NotImplementedError, ImportError)  # of torchmetrics
TAKES = ("predictions", "probabilities")
STAND_IN_ARGUMENTS = {"num_classes": 2, "num_labels": 2, "num_outputs": 1}  # for the direction alone


class OwnMetrics:
    """The metrics of one's own of a task, tried once on made-up rows before anything is trained.

    Args:
        config: The block `metrics`.
        task: Fitted; it says how many classes there are and how inputs look.

    Attributes:
        score_names: Every score that they give; of a metric that gives several, `NAME_KEY`.

    Raises:
        ConfigError: Naming every metric that cannot be used with this task.
    """

    def __init__(self, config: MetricsConfig, task: Task) -> None:
        self.config, self.task = config, task
        self.metrics = dict[str, Metric]()
        names, faults = dict[str, bool | None](), list[str]()
        taken = {*task.score_names, *task.answer_names, *RUN_METRICS}
        for name, target in config.targets.items():
            try:
                if name in taken or not SOURCE_NAME.fullmatch(name):
                    raise ConfigError(
                        translate(
                            "metrics.{name}: this run has a score of that name already; take another name", name=name
                        )
                    )
                self.metrics[name] = metric = make_metric(name, target, task.metric_arguments())
                names |= dict.fromkeys(self._compute(name, task.metric_example()), metric.higher_is_better)
            except ConfigError as fault:
                faults.append(str(fault))
        if faults:
            raise ConfigError.listing(faults)
        self.score_names: Sequence[str] = tuple(names)
        register_directions(names)

    def compute(self, inputs: MetricInputs) -> dict[str, float]:
        """Every score by its name.

        Raises:
            ConfigError: If a metric cannot take these rows.
        """
        return {key: value for name in self.metrics for key, value in self._compute(name, inputs).items()}

    def compute_answers(self, answers: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Every score of generated answers: lines of predictions.jsonl, those without a reference left out."""
        rows = sorted((line for line in answers if "reference" in line), key=lambda line: int(line["row"]))
        if not rows or not self.task.metrics_of_answers:
            return {}
        texts = [[str(line[key]) for line in rows] for key in ("prediction", "reference")]
        return self.compute(MetricInputs(texts[0], texts[1]))

    def _compute(self, name: str, inputs: MetricInputs) -> dict[str, float]:
        metric, target = self.metrics[name], self.config.targets[name].target
        try:
            predictions, truth = arranged_inputs(metric, inputs)
            metric.reset()
            metric.update(predictions, truth)
            value = metric.compute()
        except CALL_FAULTS as fault:
            raise ConfigError(
                translate(
                    "metrics.{name}: {target} cannot score data.task={task}: {fault}; there it is "
                    "updated with {metric_inputs_text}",
                    name=name,
                    target=target,
                    task=self.task.name,
                    fault=first_line(fault),
                    metric_inputs_text=self.task.metric_inputs_text,
                )
            ) from fault
        parts = value.items() if isinstance(value, Mapping) else [("", value)]
        return {f"{name}_{key}" if key else name: self._number(name, part) for key, part in parts}

    def _number(self, name: str, value: object) -> float:
        numbers = torch.as_tensor(value).double().reshape(-1).tolist()
        if len(numbers) == 1:
            return float(numbers[0])
        if len(numbers) == self.task.metric_arguments().get("num_outputs"):  # as our own scores of several targets
            return float(sum(numbers) / len(numbers))
        raise ConfigError(
            translate(
                "metrics.{name}: {target} gives {count} numbers, and a score is one; choose how they "
                "are averaged (average: macro), or give a dict of names",
                name=name,
                target=self.config.targets[name].target,
                count=len(numbers),
            )
        )


class ScoresWithOwnMetrics(Scores):
    """The scores of a task, and those of metrics of one's own over the same rows.

    Args:
        task: Has metrics of one's own.
        metrics: These.
    """

    def __init__(self, task: Task, metrics: OwnScores) -> None:
        super().__init__()
        self.task, self.scores, self.metrics = task, task.scores(), metrics
        self.rows, self.inputs = list[Tensor](), list[MetricInputs]()
        self.process_group: distributed.ProcessGroup | None = None  # those with other rows; None is all

    @override
    def update(self, logits: Tensor, micro: MicroBatch) -> None:
        self.scores.update(logits, micro)
        inputs = self.task.metric_inputs(logits.detach(), micro)
        self.rows.append(micro.row_indices[micro.row_indices >= 0].cpu())
        self.inputs.append(MetricInputs(*(None if part is None else part.cpu() for part in inputs)))

    @override
    def compute(self) -> dict[str, float]:
        ranks = gather_objects((self.rows, self.inputs), self.process_group)
        rows = [part for rank_rows, _ in ranks for part in rank_rows]
        inputs = [part for _, rank_inputs in ranks for part in rank_inputs]
        if not rows or not sum(map(len, rows)):
            return self.scores.compute()
        order = torch.cat(rows).argsort()
        columns = [None if None in column else torch.cat(column)[order] for column in zip(*inputs, strict=True)]
        return self.scores.compute() | self.metrics.compute(MetricInputs(*columns))

    @override
    def reset(self) -> None:
        self.scores.reset()
        self.rows, self.inputs = [], []

    @override
    def report(self) -> dict[str, Any]:
        return self.scores.report()


def attach_metrics(task: Task, config: MetricsConfig) -> None:
    """Have a fitted task scored by metrics of one's own too.

    Raises:
        ConfigError: Naming every metric that is not allowed, or cannot score this task.
    """
    task.own_metrics = OwnMetrics(config, task) if config.targets else None


def full_scores(task: Task) -> Scores:
    """Fresh scores of a task for one split, with those of metrics of one's own."""
    if task.own_metrics is None or task.metrics_of_answers:
        return task.scores()
    return ScoresWithOwnMetrics(task, task.own_metrics)


def answer_metric_scores(task: Task, answers: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The scores of metrics of one's own over generated answers of one split; empty where there are none."""
    return task.own_metrics.compute_answers(answers) if task.own_metrics is not None else {}


def gather_objects(value: Any, group: distributed.ProcessGroup | None = None) -> list[Any]:
    """A value of every process of a group, or of all, in the order of ranks; alone that of this one."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    ranks: list[Any] = [None] * distributed.get_world_size(group)
    distributed.all_gather_object(ranks, value, group)
    return ranks


def make_metric(name: str, target: TargetConfig, runtime: Mapping[str, object]) -> Metric:
    """The metric that a target names, with what the task knows of itself where its class takes that.

    Raises:
        ConfigError: If it is no metric, or refuses its arguments.
    """
    kind = metric_class(name, target)
    arguments = {key: value for key, value in runtime.items() if key in parameter_names(kind)}
    try:
        metric = kind(**{**arguments, **target.arguments})
    except CALL_FAULTS as fault:
        raise ConfigError(
            translate(
                "metrics.{name}: {target} refuses its arguments: {fault}",
                name=name,
                target=target.target,
                fault=first_line(fault),
            )
        ) from fault
    metric.distributed_available_fn = lambda: False  # its inputs are gathered already
    if getattr(metric, "takes", TAKES[0]) not in TAKES:
        raise ConfigError(
            translate(
                "metrics.{name}: {target}.takes is {takes!r}; say one of {names}",
                name=name,
                target=target.target,
                takes=metric.takes,
                names=", ".join(TAKES),
            )
        )
    return metric


def metric_class(name: str, target: TargetConfig) -> type[Metric]:
    """The class that a target names.

    Raises:
        ConfigError: If it is not allowed, or no torchmetrics.Metric.
    """
    try:
        kind = import_target(target.target, "metrics")
    except ConfigError as fault:
        raise ConfigError(translate("metrics.{name}: {fault}", name=name, fault=fault)) from fault
    if not isclass(kind) or not issubclass(kind, Metric):
        raise ConfigError(
            translate(
                "metrics.{name}: {target} is no metric; derive it from torchmetrics.Metric",
                name=name,
                target=target.target,
            )
        )
    return kind


def parameter_names(kind: type[Metric]) -> Collection[str]:
    """The arguments that a class takes by name, those that its **kwargs hand on to its bases included."""
    names = set[str]()
    for base in kind.__mro__:
        made_by = "__init__" if "__init__" in vars(base) else "__new__"
        if made_by not in vars(base) or base.__module__.startswith("torch.nn"):
            continue
        parameters = signature(getattr(base, made_by)).parameters.values()
        names |= {one.name for one in parameters}
        if not any(one.kind is Parameter.VAR_KEYWORD for one in parameters):
            break
    return names


def arranged_inputs(metric: Metric, inputs: MetricInputs) -> tuple[Any, Any]:
    """What a metric is updated with: its own word `takes`, else what the classes of torchmetrics are made for.

    Those for classes take probabilities, of two classes that of the second; BLEU takes several references.

    Raises:
        ValueError: If the task has no probabilities, or not those of two classes.
    """
    homes = [(base.__module__, base.__name__) for base in type(metric).__mro__]
    for_classes = [name for module, name in homes if module.startswith("torchmetrics.classification.")]
    takes = getattr(metric, "takes", "probabilities" if for_classes and inputs.probabilities is not None else TAKES[0])
    if any(module == "torchmetrics.text.bleu" for module, _ in homes):
        return inputs.predictions, [[text] for text in inputs.targets]
    if takes == TAKES[0]:
        return inputs.predictions, inputs.targets
    if inputs.probabilities is None:
        raise ValueError(translate("it takes probabilities, and there are none"))
    if any(name.startswith("Binary") for name in for_classes) and inputs.targets.ndim == 1:
        if inputs.probabilities.shape[1] != 2:
            raise ValueError(
                translate("it is made for two classes, and there are {shape}", shape=inputs.probabilities.shape[1])
            )
        return inputs.probabilities[:, 1], inputs.targets
    return inputs.probabilities, inputs.targets


def own_direction(config: MetricsConfig, score: str) -> str | None:
    """`min` or `max`: which way a score of one's own is better, without any data; None where its class does not say.

    Args:
        config: The block `metrics`.
        score: Its name, such as `val/kappa`.

    Raises:
        ConfigError: If its class is not allowed, or no metric.
    """
    bare = score.rpartition("/")[2]
    name = next((name for name in config.targets if bare == name or bare.startswith(f"{name}_")), None)
    if name is None:
        return metric_direction(score)
    kind = metric_class(name, config.targets[name])
    higher: object = kind.higher_is_better
    for task in ("multiclass", "multilabel", "binary"):
        if not isinstance(higher, bool):
            with suppress(ConfigError):
                made = make_metric(name, config.targets[name], {**STAND_IN_ARGUMENTS, "task": task})
                higher = made.higher_is_better
    return None if not isinstance(higher, bool) else "max" if higher else "min"
